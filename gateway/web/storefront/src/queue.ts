/**
 * Keeps events until the gateway has answered for them.
 *
 * Each is an entry of its own in localStorage, written before `add` returns: so it outlives a page
 * that is closed in the next moment, and tabs don't overwrite each other's. What doesn't
 * fit there goes to IndexedDB, which has more room but takes its time. What neither takes,
 * or what the visitor has not agreed to, is kept in memory.
 */

import * as device from "./device";
import * as overflow from "./overflow";
import type { Entry } from "./overflow";

export type { Entry };

const MOST_EVENTS = 1000;
const MOST_CHARACTERS = 1e6;
// While an event is leased, somebody has sent it and waits for the answer.
const LEASE_MILLISECONDS = 1e4;
// As wide as a time in milliseconds, for the next 250 years.
const FREE = "0000000000000";
const NAME = "e.";

const memory = new Map<string, string>();
/** The ids of those that this page has sent. */
const sending = new Set<string>();
// Until it has been looked into, it may hold what an earlier page left.
let overflowing = true;

const ignore = (): void => {};

/** How many bytes a text has on the wire. */
export const sizeOf = (text: string): number => new Blob([text]).size;

export function add(entry: Entry): void {
  const [id, text] = entry;
  if (device.allowed) {
    makeRoom(text.length);
    if (device.write(NAME + id, FREE + text)) return;
    overflowing = true;
    overflow.put(entry).then(() => memory.delete(id), ignore);
  }
  memory.set(id, text);
  if (memory.size > MOST_EVENTS) memory.delete([...memory.keys()][0] as string);
}

/** Puts what was kept in memory onto the device, now that the visitor has agreed. */
export function persist(): void {
  const entries = [...memory];
  memory.clear();
  entries.forEach(add);
}

/** Forgets everything, on the device too. */
export function clear(): void {
  memory.clear();
  device.list(NAME).forEach(device.remove);
  overflow.all().then(overflow.drop).catch(ignore);
}

/**
 * Takes the oldest events, at least one, but no more than so many with so many bytes; and leases
 * them. Also says in how many milliseconds a lease of another ends, if there is any.
 */
export async function take(most: number, bytes: number): Promise<[Entry[], number]> {
  const extra = device.allowed && overflowing ? await overflow.all() : [];
  overflowing = extra.length > 0;
  return takeNow(bytes, most, 1, extra);
}

/** The same of what can be had at once, as when the page goes; none if none is small enough. */
export function takeNow(
  bytes: number,
  most = MOST_EVENTS,
  least = 0,
  extra: Entry[] = [],
): [Entry[], number] {
  const now = Date.now();
  let wait = Infinity;
  const found = new Map<string, string>();
  if (device.allowed) {
    for (const name of device.list(NAME)) {
      const value = device.read(name) ?? "";
      const lease = +value.slice(0, FREE.length) - now;
      // A lease that is longer than any was made before the clock was set back.
      if (lease > 0 && lease <= LEASE_MILLISECONDS) wait = Math.min(wait, lease);
      else if (value[FREE.length] === "{") found.set(name.slice(NAME.length), value.slice(FREE.length));
      else device.remove(name);
    }
  }
  for (const [id, text] of [...extra, ...memory]) if (!sending.has(id)) found.set(id, text);
  const taken: Entry[] = [];
  for (const entry of found) {
    bytes -= sizeOf(entry[1]) + 1;
    if (taken.length === most || (bytes < 0 && taken.length >= least)) break;
    taken.push(entry);
  }
  lease(taken, now + LEASE_MILLISECONDS);
  return [taken, wait];
}

/** Gives back what was taken, after the gateway didn't have it. */
export function release(entries: Entry[]): void {
  lease(entries, 0);
  entries.forEach(([id]) => sending.delete(id));
}

/** Forgets what was taken, after the gateway has answered for it. */
export function remove(entries: Entry[]): void {
  for (const [id] of entries) {
    device.remove(NAME + id);
    memory.delete(id);
    sending.delete(id);
  }
  if (overflowing) overflow.drop(entries).catch(ignore);
}

function lease(entries: Entry[], until: number): void {
  for (const [id, text] of entries) {
    sending.add(id);
    if (device.read(NAME + id)) {
      device.write(NAME + id, `${until || FREE}${text}`);
    }
  }
}

/** Drops the oldest when there are too many: the numbers that are missing tell of it. */
function makeRoom(length: number): void {
  let names = device.list(NAME);
  // To measure them all takes time: not for each event.
  if (names.length < MOST_EVENTS && names.length % 50 !== 49) return;
  const lengths = names.map((name) => device.read(name)?.length ?? 0);
  let sum = lengths.reduce((total, each) => total + each, length);
  while (names.length >= MOST_EVENTS || sum > MOST_CHARACTERS) {
    const [oldest, ...others] = names;
    if (!oldest) return;
    device.remove(oldest);
    sum -= lengths.shift() ?? 0;
    names = others;
  }
}
