/** The store's keys: which there are, who uses them, and who did what to them. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, remove, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, dateTime, duration, spoken } from "../format";
import type { PageProps } from "../pages";
import { may } from "../session";
import { Card, Copy, Dialog, Empty, Failure, Show, Table, rowsOf, toast, type Column } from "../ui";

type Key = Schemas["keys.ApiKey"];
type Entry = Schemas["keys.KeyEvent"];

const OVERLAPS = [
  ["0s", "stops at once"],
  ["3600s", "works on for an hour"],
  ["86400s", "works on for a day"],
  ["604800s", "works on for 7 days"],
  ["2592000s", "works on for 30 days"],
] as const;

export function Keys({ view, session }: PageProps): JSX.Element {
  const store = { store_uid: view.store };
  const keys = useData(`keys ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/keys", store, { page_size: 500 }, signal),
  );
  const trail = useData(`trail ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/key-events", store, { page_size: 50 }, signal),
  );
  const [making, setMaking] = useState(false);
  const [rotating, setRotating] = useState<Key>();
  const [ending, setEnding] = useState<Key>();
  const [shown, setShown] = useState<{ text: string; title: string }>();
  const [failure, setFailure] = useState<ApiError>();
  const mayChange = may(session, "keys:write");
  const reload = (): void => {
    keys.reload();
    trail.reload();
  };
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    setFailure(undefined);
    try {
      await work();
      reload();
    } catch (error) {
      setFailure(error as ApiError);
    }
  };
  const erase = (key: Key): Promise<void> =>
    attempt(async () => {
      const path = { ...store, key_uid: key.uid };
      await remove("/v1/stores/{store_uid}/keys/{key_uid}", path);
      toast(`“${nameOf(key)}” is deleted and no longer works.`, () =>
        void attempt(async () => {
          await post("/v1/stores/{store_uid}/keys/{key_uid}:undelete", path);
          toast(`“${nameOf(key)}” works again.`);
        }),
      );
    });
  const columns: Column<Key>[] = [
    {
      name: "Key",
      cell: (row) => (
        <>
          <strong>{nameOf(row)}</strong>{" "}
          {row.uid === session.key_uid && <span class="badge">yours</span>}
          <div class="soft small">
            <code>{row.hint}</code>
          </div>
        </>
      ),
      csv: nameOf,
    },
    { name: "Kind", cell: (row) => spoken(row.kind, "KEY_KIND_"), csv: (row) => row.kind, hideNarrow: true },
    { name: "State", cell: (row) => <State row={row} zone={view.zone} />, csv: (row) => row.revoke_time ?? "" },
    {
      name: "Last used",
      hideNarrow: true,
      cell: (row) => (
        <>
          {ago(row.last_used_time)}
          <div class="soft small">{[row.last_sdk, row.last_origin].filter(Boolean).join(" · ")}</div>
        </>
      ),
      csv: (row) => row.last_used_time ?? "",
    },
    ...(mayChange
      ? [
          {
            name: "",
            cell: (row: Key) => (
              <div class="row">
                {!row.revoke_time && (
                  <>
                    <button type="button" onClick={() => setRotating(row)} aria-label={`Rotate ${nameOf(row)}`}>
                      Rotate
                    </button>
                    <button type="button" class="danger" onClick={() => setEnding(row)} aria-label={`Revoke ${nameOf(row)}`}>
                      Revoke
                    </button>
                  </>
                )}
                {row.uid !== session.key_uid && (
                  <button type="button" class="plain" onClick={() => void erase(row)} aria-label={`Delete ${nameOf(row)}`}>
                    Delete
                  </button>
                )}
              </div>
            ),
          },
        ]
      : []),
  ];
  useEffect(() => {
    setExporter(() => ({ name: "keys", rows: rowsOf(columns, keys.data?.keys ?? []) }));
    return () => setExporter(null);
  });
  return (
    <div class="stack">
      {failure && <Failure error={failure} />}
      <Card
        flush
        title="Keys"
        tools={
          mayChange && (
            <button type="button" class="primary" onClick={() => setMaking(true)}>
              New key
            </button>
          )
        }
      >
        <Show of={keys}>
          {(data) =>
            data.keys.length ? (
              <Table label="Keys" columns={columns} rows={data.keys} keyOf={(row) => row.uid} />
            ) : (
              <Empty title="The store has no keys" />
            )
          }
        </Show>
      </Card>
      <Card flush title="Who did what" tools={<span class="soft small">The latest 50; entries are sealed to one another</span>}>
        <Show of={trail}>
          {(data) =>
            data.events.length ? (
              <Table label="The trail" columns={trailColumns(view.zone, keys.data?.keys ?? [])} rows={data.events} keyOf={(row) => row.position} />
            ) : (
              <Empty title="Nothing is on record" />
            )
          }
        </Show>
      </Card>
      {making && (
        <Make
          store={view.store}
          onClose={() => setMaking(false)}
          onMade={(text) => {
            setMaking(false);
            setShown({ text, title: "The new key" });
            reload();
          }}
        />
      )}
      {rotating && (
        <Rotate
          store={view.store}
          row={rotating}
          onClose={() => setRotating(undefined)}
          onDone={(text) => {
            setRotating(undefined);
            setShown({ text, title: "The successor" });
            reload();
          }}
        />
      )}
      {ending && (
        <Revoke
          store={view.store}
          row={ending}
          isOwn={ending.uid === session.key_uid}
          onClose={() => setEnding(undefined)}
          onDone={() => {
            toast(`“${nameOf(ending)}” is revoked.`);
            setEnding(undefined);
            reload();
          }}
        />
      )}
      {shown && (
        <Dialog title={shown.title} onClose={() => setShown(undefined)}>
          <p>This is the only time that it is shown. Put it where it is needed, now.</p>
          <Copy text={shown.text} label="the key" />
        </Dialog>
      )}
    </div>
  );
}

function nameOf(key: Key): string {
  return key.display_name || key.hint;
}

function State({ row, zone }: { row: Key; zone: string }): JSX.Element {
  const ended = row.revoke_time ?? "";
  return (
    <div class="row">
      {ended ? (
        <span class="badge" title={dateTime(ended, zone)}>
          ended {ago(ended)}
        </span>
      ) : (
        <span class="badge good">works</span>
      )}
      {!ended && row.expire_time && (
        <span class="badge warn" title={dateTime(row.expire_time, zone)}>
          ends {ago(row.expire_time)}
        </span>
      )}
      {row.successor_key_uid && <span class="badge">rotated</span>}
      {!ended && row.safe_to_revoke && (
        <span class="badge good" title="Not used for 24 hours">
          safe to revoke
        </span>
      )}
      {row.exposed_time && (
        <span class="badge bad" title="It came from a browser, so it stands in a page. Rotate it.">
          exposed {ago(row.exposed_time)}
        </span>
      )}
      {row.rotate_period && <span class="badge">every {duration(row.rotate_period)}</span>}
    </div>
  );
}

function trailColumns(zone: string, keys: Key[]): Column<Entry>[] {
  const known = new Map(keys.map((key) => [key.uid, nameOf(key)]));
  return [
    { name: "When", cell: (row) => dateTime(row.create_time, zone) },
    {
      name: "What",
      cell: (row) => (
        <>
          {spoken(row.action, "KEY_EVENT_ACTION_")}{" "}
          {row.outcome === "KEY_EVENT_OUTCOME_REFUSED" && <span class="badge bad">refused</span>}
        </>
      ),
    },
    { name: "Which", cell: (row) => known.get(row.key_uid) ?? <code>{row.key_uid.slice(0, 16)}</code> },
    {
      name: "By",
      hideNarrow: true,
      cell: (row) => {
        const [identity, uid] = row.actor.split(" ");
        return uid ? `${known.get(uid) ?? "another key"}, ${row.client_network}` : identity;
      },
    },
  ];
}

function useAttempt(): [ApiError | undefined, boolean, (work: () => Promise<void>) => void] {
  const [failure, setFailure] = useState<ApiError>();
  const [busy, setBusy] = useState(false);
  const attempt = (work: () => Promise<void>): void => {
    setBusy(true);
    setFailure(undefined);
    work().then(
      () => setBusy(false),
      (error: unknown) => {
        setBusy(false);
        setFailure(error as ApiError);
      },
    );
  };
  return [failure, busy, attempt];
}

function Make(props: { store: string; onClose: () => void; onMade: (text: string) => void }): JSX.Element {
  const [kind, setKind] = useState("KEY_KIND_PUBLISHABLE");
  const [name, setName] = useState("");
  const [origins, setOrigins] = useState("");
  const [days, setDays] = useState("");
  const [failure, busy, attempt] = useAttempt();
  const make = (): void =>
    attempt(async () => {
      const made = await post("/v1/stores/{store_uid}/keys", { store_uid: props.store }, {
        kind: kind as Key["kind"],
        display_name: name.trim(),
        ...(kind === "KEY_KIND_PUBLISHABLE"
          ? {
              allowed_origins: origins.split(/[\s,]+/).filter(Boolean),
              ...(days ? { rotate_period: `${Number(days) * 86_400}s` } : {}),
            }
          : {}),
      });
      props.onMade(made.text);
    });
  return (
    <Dialog title="New key" onClose={props.onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          make();
        }}
      >
        <label class="field">
          Name
          <input required value={name} placeholder="Storefront" onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <label class="field">
          Kind
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
            <option value="KEY_KIND_PUBLISHABLE">Publishable: sends events from pages</option>
            <option value="KEY_KIND_SECRET">Secret: for servers and staff</option>
          </select>
        </label>
        {kind === "KEY_KIND_PUBLISHABLE" && (
          <>
            <label class="field">
              Hosts whose pages may use it; empty for any
              <input value={origins} placeholder="shop.example, *.shop.example" onInput={(event) => setOrigins(event.currentTarget.value)} />
            </label>
            <label class="field">
              Rotate by itself after days; empty for never
              <input type="number" min="1" max="1826" value={days} onInput={(event) => setDays(event.currentTarget.value)} />
            </label>
          </>
        )}
        {failure && <Failure error={failure} />}
        <div>
          <button type="submit" class="primary" disabled={busy}>
            Make it
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Rotate(props: {
  store: string;
  row: Key;
  onClose: () => void;
  onDone: (text: string) => void;
}): JSX.Element {
  const [overlap, setOverlap] = useState("604800s");
  const [failure, busy, attempt] = useAttempt();
  return (
    <Dialog title={`Rotate “${nameOf(props.row)}”`} onClose={props.onClose}>
      <p>A successor is made with the same rights, and shown once.</p>
      <label class="field">
        The old key
        <select value={overlap} onChange={(event) => setOverlap(event.currentTarget.value)}>
          {OVERLAPS.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </label>
      {props.row.kind === "KEY_KIND_PUBLISHABLE" && (
        <p class="soft small">Pages that still have the old key are told the new one.</p>
      )}
      {failure && <Failure error={failure} />}
      <div class="row">
        <button
          type="button"
          class="primary"
          disabled={busy}
          onClick={() =>
            attempt(async () => {
              const path = { store_uid: props.store, key_uid: props.row.uid };
              const answer = await post("/v1/stores/{store_uid}/keys/{key_uid}:rotate", path, { overlap });
              props.onDone(answer.text);
            })
          }
        >
          Rotate it
        </button>
        <button type="button" onClick={props.onClose}>
          Leave it
        </button>
      </div>
    </Dialog>
  );
}

function Revoke(props: {
  store: string;
  row: Key;
  isOwn: boolean;
  onClose: () => void;
  onDone: () => void;
}): JSX.Element {
  const { row } = props;
  const [failure, busy, attempt] = useAttempt();
  return (
    <Dialog title={`Revoke “${nameOf(row)}”?`} onClose={props.onClose}>
      <div class={row.safe_to_revoke ? "note" : "note warn"}>
        {row.safe_to_revoke
          ? "It was not used for 24 hours: nobody seems to need it."
          : `It was used ${ago(row.last_used_time ?? row.create_time)}: who still has it will be refused.`}
      </div>
      {props.isOwn && <div class="note bad">This is the key you are signed in with: you will be signed out.</div>}
      <p>It stops within a second, everywhere, and can't be made to work again.</p>
      {failure && <Failure error={failure} />}
      <div class="row">
        <button
          type="button"
          class="danger"
          disabled={busy}
          onClick={() =>
            attempt(async () => {
              const path = { store_uid: props.store, key_uid: row.uid };
              await post("/v1/stores/{store_uid}/keys/{key_uid}:revoke", path);
              props.onDone();
            })
          }
        >
          Revoke it
        </button>
        <button type="button" onClick={props.onClose}>
          Leave it
        </button>
      </div>
    </Dialog>
  );
}
