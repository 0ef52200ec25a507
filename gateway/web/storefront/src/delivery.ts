/** Brings events to the gateway: in batches, one after another, until it has answered for each. */

import * as device from "./device";
import * as queue from "./queue";

/** What the gateway says of a batch, and of those of its events that it has not accepted. */
export interface Answer {
  success: boolean;
  received: number;
  accepted: number;
  duplicates: number;
  rejected: number;
  quota: number;
  results: { index: number; messageId?: string; verdict: string; code?: string; message?: string }[];
}

const MOST_EVENTS = 100;
// A browser lets requests outlive their page if together they have no more than 64 KiB.
const BATCH_BYTES = 3e4;
const KEPT_ALIVE_BYTES = 6e4;
const ANSWER_MILLISECONDS = 15e3;
const LONGEST_WAIT_MILLISECONDS = 3e5;
const GATHER_MILLISECONDS = 100;

let open = false;
let url = "";
let key = "";
let tell: (what: object) => void;

let busy = false;
let failures = 0;
let most = MOST_EVENTS;
let keptAlive = 0;
let resumes = 0;
let timer = 0;
let due = Infinity;

/** Begins to send events there, and to tell of each answer. */
export function start(to: string, as: string, telling: (what: object) => void): void {
  url = to;
  key = as;
  tell = telling;
  addEventListener("online", () => {
    // Unless it was the gateway that has asked us to wait.
    if (failures) waitUntil(0);
    soon();
  });
  const turn = (): void => (document.visibilityState === "hidden" ? hurry() : soon());
  document.addEventListener("visibilitychange", turn);
  addEventListener("pagehide", hurry);
}

/** Says whether anything may be sent. */
export function permit(permitted: boolean): void {
  open = permitted;
  if (open) soon();
}

/** Sends what there is after so many milliseconds, or earlier. */
export function soon(milliseconds = GATHER_MILLISECONDS): void {
  const then = Date.now() + milliseconds;
  if (then >= due) return;
  clearTimeout(timer);
  due = then;
  timer = window.setTimeout(flush, milliseconds);
}

/** Sends all that there is, one tab at a time; resolves when that is done, or has to wait. */
export async function flush(): Promise<void> {
  clearTimeout(timer);
  due = Infinity;
  if (busy || !open) return;
  busy = true;
  const work = async (): Promise<void> => {
    while (await sendBatch());
  };
  // Missing on pages without TLS, and refused where storage is: each tab has events of its own
  // then, or two may send the same, which is counted once.
  await (navigator.locks?.request("shoptrail", work).catch(work) ?? work());
  busy = false;
}

/** Sends what fits while the page goes. What is not answered stays on the device. */
function hurry(): void {
  if (!open || mustWait()) return;
  const [entries] = queue.takeNow(KEPT_ALIVE_BYTES - keptAlive);
  if (entries.length) send(entries);
}

/** Whether there may be more to send. */
async function sendBatch(): Promise<boolean> {
  const wait = mustWait();
  const [entries, lease] = wait ? [[], wait] : await queue.take(most, BATCH_BYTES);
  if (entries.length) return send(entries);
  if (lease < Infinity) soon(lease);
  return false;
}

/** Whether the gateway has answered for the events. */
async function send(entries: queue.Entry[]): Promise<boolean> {
  const body = `{"writeKey":${JSON.stringify(key)},"sentAt":"${new Date().toISOString()}","batch":[${entries.map(([, text]) => text)}]}`;
  const bytes = queue.sizeOf(body);
  const keepalive = bytes + keptAlive < 65e3;
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), ANSWER_MILLISECONDS);
  let status = 0;
  let retrySeconds = 0;
  let answer: Answer | undefined;
  if (keepalive) keptAlive += bytes;
  try {
    // A text has no content type that browsers would first ask the gateway about.
    const response = await fetch(url, {
      method: "POST",
      body,
      keepalive,
      credentials: "omit",
      signal: abort.signal,
    });
    status = response.status;
    retrySeconds = +(response.headers.get("Retry-After") ?? 0) || 0;
    answer = (await response.json()) as Answer;
  } catch {
    // No network, no answer in time, or an answer of somebody else.
  }
  clearTimeout(limit);
  if (keepalive) keptAlive -= bytes;
  tell({ status, answer, ids: entries.map(([id]) => id) });
  const unreadable = status === 400 || status === 413;
  // A hotel's network answers 200 to anything.
  if ((status === 200 && answer?.success) || (unreadable && entries.length < 2)) {
    failures = 0;
    most = MOST_EVENTS;
    queue.remove(entries);
    return true;
  }
  queue.release(entries);
  if (unreadable) {
    // One of them is to blame, and must not keep back the others.
    most = entries.length >> 1;
    return true;
  }
  const seconds = retrySeconds || 2 ** Math.min(failures++, 9) * (0.5 + Math.random() / 2);
  waitUntil(Date.now() + Math.min(seconds * 1e3, LONGEST_WAIT_MILLISECONDS));
  if (retrySeconds) failures = 0;
  soon(mustWait());
  return false;
}

function waitUntil(time: number): void {
  resumes = time;
  // Other tabs, and the next page, wait as long.
  device.write("wait", `${time}`);
}

/** How many milliseconds are left to wait. */
function mustWait(): number {
  const wait = Math.max(resumes, device.allowed ? +(device.read("wait") ?? 0) : 0) - Date.now();
  // What is longer than any was meant before the clock was set back.
  return wait > 0 && wait <= LONGEST_WAIT_MILLISECONDS ? wait : 0;
}
