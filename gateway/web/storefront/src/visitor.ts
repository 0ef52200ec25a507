/** Who the visitor is: random ids, and the user's if the shop has told it. */

import * as device from "./device";

interface Known {
  /** The visitor's id, `anonymousId`. */
  a: string;
  /** The user's. */
  u?: string;
  /** The group's. */
  g?: string;
  /** Whose events are numbered: this browser's, on this origin. */
  v: string;
  /** The number of the last event. */
  n: number;
}

const NAME = "visitor";
const COOKIE = "shoptrail_id";

let known: Known | undefined;

/** What is known now, also by what other tabs did meanwhile. */
export function get(): Known {
  if (device.allowed) {
    try {
      const kept = JSON.parse(device.read(NAME) ?? "0") as Known | 0;
      if (kept && kept.a) known = kept;
    } catch {
      // Somebody else wrote it: it is written anew.
    }
  }
  return (known ??= {
    a: (device.allowed && device.readCookie(COOKIE)) || device.random(),
    v: device.random(),
    n: 0,
  });
}

export function change(changes: Partial<Known>, domain: string): void {
  known = { ...get(), ...changes };
  if (device.write(NAME, JSON.stringify(known)) && device.readCookie(COOKIE) !== known.a)
    device.writeCookie(COOKIE, known.a, domain);
}

/** Becomes somebody unknown. */
export function reset(domain: string): void {
  known = undefined;
  device.remove(NAME);
  if (device.readCookie(COOKIE)) device.writeCookie(COOKIE, "", domain);
}
