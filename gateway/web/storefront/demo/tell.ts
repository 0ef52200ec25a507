/** Speaks to the script, which may still be on its way. */

type Calls = { push(call: unknown[]): unknown };

const page = window as unknown as { shoptrail?: Calls | unknown[][] };

export function tell(method: string, ...given: unknown[]): void {
  (page.shoptrail ??= []).push([method, ...given]);
}

/** A moment later, when the script has told that the page is seen. */
export function tellNext(method: string, ...given: unknown[]): void {
  setTimeout(() => tell(method, ...given), 5);
}
