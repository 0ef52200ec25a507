/** Events that could not be stored: why, and how to mend and replay them. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, count, dateTime, spoken } from "../format";
import type { PageProps } from "../pages";
import { may } from "../session";
import { Card, Empty, Failure, Show, Table, rowsOf, toast, type Column } from "../ui";
import { setParameters } from "../url";

type Reason = Schemas["ingest.RejectionReason"];
type Refused = Schemas["ingest.RejectedEvent"];

export function Rejected({ view, session }: PageProps): JSX.Element {
  const store = { store_uid: view.store };
  const reasons = useData(`reasons ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/rejected-events:count", store, undefined, signal),
  );
  const [code, path, name] = [view.one("code"), view.one("path"), view.one("name")];
  const columns: Column<Reason>[] = [
    {
      name: "Reason",
      cell: (row) => (
        <button
          type="button"
          class="plain"
          onClick={() => setParameters({ code: row.code, path: row.path, name: row.name })}
        >
          <strong>{spoken(row.code, "")}</strong>
        </button>
      ),
      csv: (row) => row.code,
    },
    { name: "Where", cell: (row) => <code>{row.path || "the whole event"}</code>, csv: (row) => row.path },
    { name: "Event", cell: (row) => row.name || <span class="soft">(none)</span>, csv: (row) => row.name },
    { name: "Events", num: true, cell: (row) => count(row.event_count), csv: (row) => Number(row.event_count) },
    { name: "Last", hideNarrow: true, cell: (row) => ago(row.last_receive_time), csv: (row) => row.last_receive_time ?? "" },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "rejected", rows: rowsOf(columns, reasons.data?.reasons ?? []) }));
    return () => setExporter(null);
  });
  return (
    <div class="stack">
      <Card flush title="Why events were rejected">
        <Show of={reasons}>
          {(data) =>
            data.reasons.length === 0 ? (
              <Empty title="Nothing is rejected">
                <p>Every event that was sent is in the log, or was replayed into it.</p>
              </Empty>
            ) : (
              <Table
                label="Reasons"
                columns={columns}
                rows={data.reasons}
                keyOf={(row) => `${row.code} ${row.path} ${row.name}`}
              />
            )
          }
        </Show>
      </Card>
      {code && (
        <Chosen
          key={`${code} ${path} ${name}`}
          view={view}
          filter={{ code, path, name }}
          mayChange={may(session, "events:read", "events:write")}
          onChanged={reasons.reload}
        />
      )}
    </div>
  );
}

/** Such as `/properties/products/0/price` for `properties.products[0].price`. */
export function pointerTo(path: string): string {
  return path
    .split(/[.[]/)
    .filter(Boolean)
    .map((part) => `/${part.replace("]", "").replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}

function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

interface Tried {
  did: string;
  events: { uid: string; ok: boolean; told: string; payload?: string }[];
}

function Chosen(props: {
  view: PageProps["view"];
  filter: { code: string; path: string; name: string };
  mayChange: boolean;
  onChanged: () => void;
}): JSX.Element {
  const { view, filter } = props;
  const store = { store_uid: view.store };
  const list = useData(JSON.stringify([view.store, filter]), (signal) =>
    get("/v1/stores/{store_uid}/rejected-events", store, { ...filter, page_size: 50 }, signal),
  );
  const [pointer, setPointer] = useState(pointerTo(filter.path) || "/event");
  const [value, setValue] = useState("");
  const [patch, setPatch] = useState("");
  const [raw, setRaw] = useState(false);
  const [busy, setBusy] = useState("");
  const [done, setDone] = useState(0);
  const [failure, setFailure] = useState<ApiError>();
  const [tried, setTried] = useState<Tried>();
  // Once fixed, events no longer have the fault by which they were found.
  const [fixedUids, setFixedUids] = useState<string[]>([]);

  const ready = raw ? patch.trim() !== "" : pointer !== "" && value !== "";
  const written = raw ? patch : JSON.stringify([{ op: "add", path: pointer, value: valueOf(value) }]);

  const attempt = async (did: string, work: () => Promise<void>): Promise<void> => {
    setBusy(did);
    setDone(0);
    setFailure(undefined);
    try {
      await work();
    } catch (error) {
      setFailure(error instanceof ApiError ? error : new ApiError(0, String(error), []));
    }
    setBusy("");
  };

  const fix = (dryRun: boolean): Promise<void> =>
    attempt(dryRun ? "try" : "fix", async () => {
      const events: Tried["events"] = [];
      let token = "";
      do {
        const answer = await post("/v1/stores/{store_uid}/rejected-events:fix", store, {
          filter: { ...filter, uids: [] }, patch: written, dry_run: dryRun, page_size: 200, page_token: token,
        });
        for (const each of answer.fixed_events) {
          const wrong = each.fault?.message ?? "";
          events.push({
            uid: each.uid,
            ok: each.patched && !wrong,
            told: !each.patched ? "The patch doesn't fit this event." : wrong || "Nothing is wrong with it any more.",
            payload: each.payload,
          });
        }
        token = answer.next_page_token;
        setDone(events.length);
      } while (token);
      setTried({ did: dryRun ? "would be" : "were", events });
      if (dryRun) return;
      const whole = events.filter((each) => each.ok).map((each) => each.uid);
      setFixedUids(whole);
      toast(`${count(whole.length)} fixed. Replay puts them into the log.`);
      list.reload();
      props.onChanged();
    });

  const replay = (dryRun: boolean): Promise<void> =>
    attempt(dryRun ? "try-replay" : "replay", async () => {
      const events: Tried["events"] = [];
      const chunks: string[][] = fixedUids.length ? chunksOf(fixedUids, 200) : [[]];
      for (const uids of chunks) {
        let token = "";
        do {
          const answer = await post("/v1/stores/{store_uid}/rejected-events:replay", store, {
            filter: uids.length ? { uids, code: "", path: "", name: "" } : { ...filter, uids },
            dry_run: dryRun, page_size: 200, page_token: token,
          });
          for (const each of answer.replayed_events) {
            events.push({
              uid: each.uid,
              ok: each.verdict !== "VERDICT_REJECTED",
              told: each.fault?.message || spoken(each.verdict, "VERDICT_"),
            });
          }
          token = answer.next_page_token;
          setDone(events.length);
        } while (token);
      }
      setTried({ did: dryRun ? "would be replayed" : "were replayed", events });
      if (dryRun) return;
      const stored = events.filter((each) => each.ok).length;
      toast(`${count(stored)} of ${count(events.length)} are in the log now.`);
      setFixedUids([]);
      list.reload();
      props.onChanged();
    });

  const columns: Column<Refused>[] = [
    {
      name: "Event",
      cell: (row) => (
        <details>
          <summary>
            {row.name || "(no name)"} <code class="soft">{row.uid}</code>
          </summary>
          <pre tabIndex={0} aria-label="The event">{pretty(row.payload)}</pre>
        </details>
      ),
    },
    { name: "Fault", cell: (row) => row.fault?.message },
    { name: "Received", cell: (row) => dateTime(row.receive_time, view.zone), hideNarrow: true },
    { name: "", cell: (row) => row.fix_time && <span class="badge">edited</span> },
  ];
  return (
    <>
      {props.mayChange && (
        <Card title={`Fix: ${spoken(filter.code, "")} at ${filter.path || "the whole event"}`}>
          <div class="stack">
            {raw ? (
              <label class="field">
                JSON Patch (RFC 6902)
                <textarea
                  class="code"
                  spellcheck={false}
                  value={patch}
                  onInput={(event) => setPatch(event.currentTarget.value)}
                />
              </label>
            ) : (
              <div class="row">
                <label class="field">
                  Set
                  <input
                    value={pointer}
                    spellcheck={false}
                    onInput={(event) => setPointer(event.currentTarget.value)}
                  />
                </label>
                <label class="field">
                  to
                  <input
                    value={value}
                    placeholder='Order Completed, 12.5 or ["a"]'
                    onInput={(event) => setValue(event.currentTarget.value)}
                  />
                </label>
              </div>
            )}
            <div class="row">
              <button type="button" disabled={!!busy || !ready} onClick={() => void fix(true)}>
                Try it
              </button>
              <button type="button" class="primary" disabled={!!busy || !ready} onClick={() => void fix(false)}>
                {busy === "fix" ? `Fixing… ${count(done)}` : "Fix"}
              </button>
              <button
                type="button"
                class="plain"
                onClick={() => {
                  setPatch(written);
                  setRaw(!raw);
                }}
              >
                {raw ? "One field instead" : "Write a patch instead"}
              </button>
            </div>
            <div class="row">
              <button type="button" disabled={!!busy} onClick={() => void replay(true)}>
                Try the replay
              </button>
              <button
                type="button"
                class={fixedUids.length ? "primary" : ""}
                disabled={!!busy}
                onClick={() => void replay(false)}
              >
                {busy === "replay" ? `Replaying… ${count(done)}` : fixedUids.length ? `Replay ${count(fixedUids.length)} fixed` : "Replay as they are"}
              </button>
              <span class="soft small">A replay done twice stores once.</span>
            </div>
            {failure && <Failure error={failure} />}
            {tried && <Outcome tried={tried} />}
          </div>
        </Card>
      )}
      <Card flush title="These events">
        <Show of={list}>
          {(data) =>
            data.rejected_events.length === 0 ? (
              <Empty title="None is left with this reason">
                {fixedUids.length > 0 && <p>The fixed ones wait to be replayed.</p>}
              </Empty>
            ) : (
              <Table label="Rejected events" columns={columns} rows={data.rejected_events} keyOf={(row) => row.uid} />
            )
          }
        </Show>
      </Card>
    </>
  );
}

function chunksOf(all: string[], size: number): string[][] {
  const chunks: string[][] = [];
  for (let start = 0; start < all.length; start += size) chunks.push(all.slice(start, start + size));
  return chunks;
}

function pretty(payload: string): string {
  try {
    return JSON.stringify(JSON.parse(payload), null, 2);
  } catch {
    return payload;
  }
}

function Outcome({ tried }: { tried: Tried }): JSX.Element {
  const good = tried.events.filter((each) => each.ok).length;
  const told = new Map<string, number>();
  for (const each of tried.events) told.set(each.told, (told.get(each.told) ?? 0) + 1);
  const example = tried.events.find((each) => each.payload);
  return (
    <div class={good === tried.events.length ? "note" : "note warn"} role="status">
      <p>
        {count(tried.events.length)} events looked at; {count(good)} {tried.did.startsWith("w") && tried.did.includes("replayed") ? tried.did : `${tried.did} whole`}.
      </p>
      <ul>
        {[...told].map(([text, times]) => (
          <li key={text}>
            {count(times)} × {text}
          </li>
        ))}
      </ul>
      {example?.payload && (
        <details>
          <summary>An example, as it {tried.did === "would be" ? "would be" : "is"} then</summary>
          <pre tabIndex={0} aria-label="An example">{pretty(example.payload)}</pre>
        </details>
      )}
    </div>
  );
}
