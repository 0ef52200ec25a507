/** What comes in, verdict by verdict, as it comes. */

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { address, get, isSignedIn, type Schemas } from "../api";
import { setExporter } from "../csv";
import { EventRow, type Recorded } from "../event_row";
import { count, timeOfDay } from "../format";
import type { PageProps } from "../pages";
import { Card, Empty, HowToSend, Segments } from "../ui";
import { follow, linkTo, setParameters } from "../url";

type Refused = Schemas["ingest.RejectedEvent"];
type Entry = { uid: string; name: string; who: string } & (
  | { event: Recorded }
  | { refused: Refused }
);

const MOST = 300;
const KINDS = [
  ["", "All"],
  ["accepted", "Accepted"],
  ["rejected", "Rejected"],
] as const;

function accepted(event: Recorded): Entry {
  const name = event.name || event.type;
  return { uid: event.uid, name, who: `${event.user_id} ${event.anonymous_id}`, event };
}

function rejected(refused: Refused): Entry {
  return { uid: refused.uid, name: refused.name || "(no name)", who: "", refused };
}

export function Live({ view }: PageProps): JSX.Element {
  const [entries, setEntries] = useState<Entry[]>([]);
  const [fresh, setFresh] = useState<ReadonlySet<string>>(new Set());
  const [state, setState] = useState<"connecting" | "on" | "off">("connecting");
  const [paused, setPaused] = useState(false);
  const [waiting, setWaiting] = useState(0);
  const [counted, setCounted] = useState({ accepted: 0, rejected: 0 });
  const held = useRef<Entry[]>([]);
  const isPaused = useRef(false);
  isPaused.current = paused;

  const show = (added: Entry[]): void => {
    if (!added.length) return;
    setFresh(new Set(added.map((each) => each.uid)));
    setEntries((before) => {
      const known = new Set(before.map((each) => each.uid));
      return [...added.filter((each) => !known.has(each.uid)), ...before].slice(0, MOST);
    });
  };

  useEffect(() => {
    const store = { store_uid: view.store };
    // What came last, so that the page isn't empty until something happens.
    get("/v1/stores/{store_uid}/events", store, { page_size: 20 }).then(
      (answer) =>
        setEntries((before) =>
          [...before, ...answer.events.map(accepted)].filter(
            (each, index, all) => all.findIndex((other) => other.uid === each.uid) === index,
          ),
        ),
      () => undefined,
    );
    let source: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    let last = "";
    const connect = (): void => {
      const from = last ? { page_token: last } : {};
      source = new EventSource(address("/v1/stores/{store_uid}/events:live", store, from));
      source.onopen = () => setState("on");
      source.onmessage = take;
      source.onerror = () => {
        setState("off");
        // After an answer that is no stream browsers give up; after a lost one they don't.
        if (source.readyState !== EventSource.CLOSED) return;
        again = setTimeout(() => void isSignedIn().then((stays) => stays && connect()), 2000);
      };
    };
    const take = (message: MessageEvent<string>): void => {
      last = message.lastEventId;
      const told = JSON.parse(message.data) as { accepted: Recorded[]; rejected: Refused[] };
      const added = [
        ...told.rejected.map(rejected).reverse(),
        ...told.accepted.map(accepted).reverse(),
      ];
      if (!added.length) return;
      setCounted((before) => ({
        accepted: before.accepted + told.accepted.length,
        rejected: before.rejected + told.rejected.length,
      }));
      if (isPaused.current) {
        held.current = [...added, ...held.current].slice(0, MOST);
        setWaiting(held.current.length);
      } else show(added);
    };
    connect();
    return () => {
      clearTimeout(again);
      source.close();
    };
  }, [view.store]);

  const resume = (): void => {
    setPaused(false);
    show(held.current);
    held.current = [];
    setWaiting(0);
  };

  const kind = view.one("show");
  const text = view.one("find").toLowerCase();
  const shown = useMemo(
    () =>
      entries.filter(
        (each) =>
          (!kind || ("event" in each ? "accepted" : "rejected") === kind) &&
          (!text || `${each.name} ${each.who}`.toLowerCase().includes(text)),
      ),
    [entries, kind, text],
  );
  useEffect(() => {
    setExporter(() => ({
      name: "live",
      rows: [
        ["Time", "Verdict", "Event", "User", "Anonymous id", "Fault"],
        ...shown.map((each) =>
          "event" in each
            ? [each.event.occur_time ?? "", "accepted", each.name, each.event.user_id, each.event.anonymous_id, ""]
            : [each.refused.receive_time ?? "", "rejected", each.name, "", "", each.refused.fault?.code ?? ""],
        ),
      ],
    }));
    return () => setExporter(null);
  });
  const names = { connecting: "Connecting…", on: "Connected", off: "Cut off, trying again…" };
  return (
    <div class="stack">
      <div class="row apart">
        <div class="row">
          <span class={`dot ${state === "on" ? `on ${paused ? "" : "beat"}` : state === "off" ? "off" : ""}`} />
          <span role="status">{paused ? "Paused" : names[state]}</span>
          <span class="soft small">
            {count(counted.accepted)} accepted, {count(counted.rejected)} rejected since you came
          </span>
        </div>
        <div class="row">
          <input
            type="search"
            aria-label="Find by name or visitor"
            placeholder="Name or visitor"
            value={view.one("find")}
            onInput={(event) => setParameters({ find: event.currentTarget.value }, { replace: true })}
          />
          <Segments
            label="Verdicts"
            options={KINDS}
            value={kind as ""}
            onChange={(value) => setParameters({ show: value }, { replace: true })}
          />
          <button type="button" aria-pressed={paused} onClick={() => (paused ? resume() : setPaused(true))}>
            {paused ? `Go on${waiting ? ` (${waiting} waiting)` : ""}` : "Pause"}
          </button>
        </div>
      </div>
      <Card flush>
        {shown.length === 0 ? (
          <Empty title={entries.length ? "Nothing here matches" : "Waiting for a first event"}>
            {entries.length === 0 && <HowToSend />}
          </Empty>
        ) : (
          <ol class="stream" aria-label="Events, the latest first">
            {shown.map((each) =>
              "event" in each ? (
                <EventRow
                  key={each.uid}
                  event={each.event}
                  zone={view.zone}
                  fresh={fresh.has(each.uid)}
                  verdict={<span class="badge good">accepted</span>}
                />
              ) : (
                <RefusedRow key={each.uid} refused={each.refused} zone={view.zone} fresh={fresh.has(each.uid)} />
              ),
            )}
          </ol>
        )}
      </Card>
    </div>
  );
}

function RefusedRow(props: { refused: Refused; zone: string; fresh: boolean }): JSX.Element {
  const { refused, zone } = props;
  return (
    <li class={props.fresh ? "new" : undefined}>
      <details>
        <summary>
          <time class="when soft num" dateTime={refused.receive_time}>
            {timeOfDay(refused.receive_time ?? "", zone)}
          </time>
          <span class="badge bad">rejected</span>
          <span>
            <span class="name">{refused.name || "(no name)"}</span>{" "}
            <span class="soft">
              {refused.fault?.code} {refused.fault?.path}
            </span>
          </span>
          <span class="who" />
          <span />
        </summary>
        <div class="inside">
          <p>
            {refused.fault?.message}{" "}
            <a href={linkTo("rejected", { code: refused.fault?.code ?? "", path: refused.fault?.path ?? "" })} onClick={follow}>
              Fix it and its like
            </a>
          </p>
          <pre tabIndex={0} aria-label="The event as it was sent">{refused.payload}</pre>
        </div>
      </details>
    </li>
  );
}
