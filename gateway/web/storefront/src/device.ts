/** Keeps small texts on the visitor's device, where the browser and the visitor let us. */

const PREFIX = "shoptrail.";

/** Whether the visitor lets us keep anything. */
export let allowed = false;

export function allow(agreed: boolean): void {
  allowed = agreed;
}

/** What the work gives; if storage is blocked, or full, or isn't there, the other. */
function attempt<T>(work: () => T, otherwise: T): T {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

/** The text of this name; null if there is none. */
export const read = (name: string): string | null =>
  attempt(() => localStorage.getItem(PREFIX + name), null);

/** Whether the text is kept now. When the call returns it outlives the page. */
export const write = (name: string, text: string): boolean =>
  allowed && attempt(() => (localStorage.setItem(PREFIX + name, text), true), false);

export const remove = (name: string): void =>
  attempt(() => localStorage.removeItem(PREFIX + name), undefined);

/** The names that begin so, in order. */
export const list = (beginning: string): string[] =>
  attempt(() => Object.keys(localStorage), [])
    .filter((name) => name.startsWith(PREFIX + beginning))
    .map((name) => name.slice(PREFIX.length))
    .sort();

export const readCookie = (name: string): string | undefined =>
  attempt(() => document.cookie.match(`(?:^|; )${name}=([^;]+)`)?.[1], undefined);

/** Writes a first-party cookie for all pages of the domain; an empty text removes it. */
export function writeCookie(name: string, text: string, domain: string): void {
  const days = text ? 390 : 0;
  document.cookie = `${name}=${text};Path=/;SameSite=Lax;Max-Age=${days * 86400}${
    domain && `;Domain=${domain}`
  }${location.protocol === "https:" ? ";Secure" : ""}`;
}

/** 16 random bytes, in letters and digits: pages without TLS have no `crypto.randomUUID`. */
export const random = (): string =>
  [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => (byte + 256).toString(16).slice(1))
    .join("");
