/** What people asked about their own data: erased, kept out, or handed over. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, type Schemas } from "../api";
import { saveFile, setExporter } from "../csv";
import { useData } from "../data";
import { count, dateTime, spoken } from "../format";
import type { PageProps } from "../pages";
import { Card, Copy, Empty, Failure, Segments, Show, Table, rowsOf, toast, type Column } from "../ui";
import { setParameters, type View } from "../url";

type Case = Schemas["maintenance.Case"];
type Kind = Schemas["maintenance.CaseKind"];

const KINDS = [
  ["CASE_KIND_EXPORT", "Export", "A copy of all that is kept of them, as a ZIP file, for 7 days."],
  ["CASE_KIND_ERASE", "Erase", "All that is kept of them goes, for good, and no more is kept from now on."],
  ["CASE_KIND_SUPPRESS", "Suppress", "What is there stays; no more is kept from now on."],
  ["CASE_KIND_UNSUPPRESS", "Unsuppress", "Events of theirs are kept again."],
] as const;
const IDS = [
  ["user_id", "User id"],
  ["anonymous_id", "Anonymous id"],
  ["email", "E-mail"],
] as const;
const STATES: Record<string, string> = {
  CASE_STATE_DONE: "good",
  CASE_STATE_FAILED: "bad",
  CASE_STATE_RUNNING: "warn",
};
const LOOK_AGAIN_MILLISECONDS = 1000;

const isOpen = (each: Case): boolean =>
  each.state === "CASE_STATE_PENDING" || each.state === "CASE_STATE_RUNNING";

function State({ of }: { of: Case }): JSX.Element {
  return (
    <span class={`badge ${STATES[of.state] ?? ""}`} title={of.failure}>
      {spoken(of.state, "CASE_STATE_").toLowerCase()}
    </span>
  );
}

export function People({ view }: PageProps): JSX.Element {
  const loaded = useData(`cases ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/privacy-cases", { store_uid: view.store }, { page_size: 500 }, signal),
  );
  const cases = loaded.data?.cases ?? [];
  const anyOpen = cases.some(isOpen);
  useEffect(() => {
    if (!anyOpen) return undefined;
    const timer = setInterval(loaded.reload, LOOK_AGAIN_MILLISECONDS);
    return () => clearInterval(timer);
  }, [anyOpen, loaded.reload]);
  const columns: Column<Case>[] = [
    { name: "Asked for", cell: (row) => spoken(row.kind, "CASE_KIND_"), csv: (row) => row.kind },
    { name: "State", cell: (row) => <State of={row} />, csv: (row) => row.state },
    {
      name: "Opened",
      cell: (row) => dateTime(row.create_time, view.zone),
      csv: (row) => row.create_time ?? "",
    },
    {
      name: "Done",
      hideNarrow: true,
      cell: (row) => dateTime(row.end_time, view.zone),
      csv: (row) => row.end_time ?? "",
    },
    { name: "Case", hideNarrow: true, cell: (row) => <code class="small">{row.uid}</code>, csv: (row) => row.uid },
    {
      name: "",
      cell: (row) => (
        <button
          type="button"
          class="plain"
          aria-label={`Show ${row.uid}`}
          onClick={() => setParameters({ case: row.uid })}
        >
          Show
        </button>
      ),
    },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "requests", rows: rowsOf(columns, cases) }));
    return () => setExporter(null);
  });
  const chosen = view.one("case");
  return (
    <div class="stack">
      <NewCase
        store={view.store}
        onOpened={(uid) => {
          setParameters({ case: uid });
          loaded.reload();
        }}
      />
      {chosen && <One key={chosen} uid={chosen} view={view} />}
      <Card flush title="Requests">
        <Show of={loaded}>
          {() =>
            cases.length ? (
              <Table
                label="Requests"
                columns={columns}
                rows={cases}
                keyOf={(row) => row.uid}
                selected={(row) => row.uid === chosen}
              />
            ) : (
              <Empty title="Nobody has asked yet" />
            )
          }
        </Show>
      </Card>
    </div>
  );
}

function NewCase(props: { store: string; onOpened: (uid: string) => void }): JSX.Element {
  const [kind, setKind] = useState<Kind>("CASE_KIND_EXPORT");
  const [idKind, setIdKind] = useState<(typeof IDS)[number][0]>("user_id");
  const [id, setId] = useState("");
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<ApiError>();
  const open = async (): Promise<void> => {
    setBusy(true);
    setFailure(undefined);
    try {
      const none = { user_id: "", anonymous_id: "", email: "" };
      const answer = await post(
        "/v1/stores/{store_uid}/privacy-cases",
        { store_uid: props.store },
        { ...none, kind, [idKind]: id.trim() },
      );
      setId("");
      setAsking(false);
      props.onOpened(answer.case?.uid ?? "");
    } catch (error) {
      setFailure(error as ApiError);
    }
    setBusy(false);
  };
  return (
    <Card title="A person asks">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (kind === "CASE_KIND_ERASE" && !asking) setAsking(true);
          else void open();
        }}
      >
        <Segments
          label="What they ask for"
          options={KINDS.map(([value, name]) => [value, name] as const)}
          value={kind as (typeof KINDS)[number][0]}
          onChange={(value) => {
            setKind(value);
            setAsking(false);
          }}
        />
        <p class="soft small">{KINDS.find(([value]) => value === kind)?.[2]}</p>
        <div class="row">
          <label class="field">
            They are known by
            <select
              value={idKind}
              onChange={(event) => setIdKind(event.currentTarget.value as typeof idKind)}
            >
              {IDS.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <label class="field">
            {IDS.find(([value]) => value === idKind)?.[1]}
            <input
              required
              maxLength={255}
              inputMode={idKind === "email" ? "email" : "text"}
              autocomplete="off"
              value={id}
              onInput={(event) => {
                setId(event.currentTarget.value);
                setAsking(false);
              }}
            />
          </label>
          {!asking && (
            <button type="submit" class="primary" disabled={busy || !id.trim()}>
              {busy ? "Opening…" : "Open the case"}
            </button>
          )}
        </div>
        {asking && (
          <div class="note warn" role="alert">
            <p>
              Everything of <strong>{id}</strong>, and of all ids that are theirs, goes. Nobody can
              bring it back.
            </p>
            <div class="row">
              <button type="submit" class="danger" disabled={busy}>
                {busy ? "Opening…" : "Erase them"}
              </button>
              <button type="button" class="plain" onClick={() => setAsking(false)}>
                Leave it
              </button>
            </div>
          </div>
        )}
        {failure && <Failure error={failure} />}
      </form>
    </Card>
  );
}

function One({ uid, view }: { uid: string; view: View }): JSX.Element {
  const path = { store_uid: view.store, case_uid: uid };
  const loaded = useData(`case ${uid}`, (signal) =>
    get("/v1/stores/{store_uid}/privacy-cases/{case_uid}", path, undefined, signal),
  );
  const open = loaded.data?.case && isOpen(loaded.data.case);
  useEffect(() => {
    if (!open) return undefined;
    const timer = setInterval(loaded.reload, LOOK_AGAIN_MILLISECONDS);
    return () => clearInterval(timer);
  }, [open, loaded.reload]);
  const [failure, setFailure] = useState<ApiError>();
  const [part, setPart] = useState<string>();
  const download = async (partCount: number): Promise<void> => {
    setFailure(undefined);
    try {
      const parts: BlobPart[] = [];
      for (let each = 0; each < partCount; each += 1) {
        setPart(`Fetching ${each + 1} of ${partCount}…`);
        const answer = await get(
          "/v1/stores/{store_uid}/privacy-cases/{case_uid}/archive",
          path,
          { part: each },
        );
        parts.push(Uint8Array.from(atob(answer.content), (letter) => letter.charCodeAt(0)));
      }
      saveFile(`${uid}.zip`, new Blob(parts, { type: "application/zip" }));
      toast("Saved.");
    } catch (error) {
      setFailure(error as ApiError);
    }
    setPart(undefined);
  };
  const tools = (
    <button type="button" class="plain" onClick={() => setParameters({ case: "" })}>
      Close
    </button>
  );
  return (
    <Card title="The case" tools={tools}>
      <Show of={loaded}>
        {(data) => {
          const found = data.case;
          if (!found) return null;
          const rows = found.counts.reduce((sum, each) => sum + Number(each.row_count), 0);
          return (
            <div class="stack">
              <div class="row">
                <strong>{spoken(found.kind, "CASE_KIND_")}</strong> <State of={found} />
                <span class="soft small">
                  Known ids: {count(found.id_count)}; rows: {count(rows)}, in {count(found.counts.length)} tables
                </span>
              </div>
              {found.failure && (
                <div class="note bad">
                  A service refused with <code>{found.failure}</code>. It is tried again every five
                  minutes.
                </div>
              )}
              {found.suppress_time && (
                <p class="soft small">
                  Nothing of theirs is kept since {dateTime(found.suppress_time, view.zone)}.
                </p>
              )}
              {found.counts.length > 0 && (
                <Table
                  label="Rows by table"
                  columns={[
                    { name: "Table", cell: (row) => <code>{row.table}</code> },
                    { name: "Rows", num: true, cell: (row) => count(row.row_count) },
                  ]}
                  rows={found.counts}
                  keyOf={(row) => row.table}
                />
              )}
              {found.archive_part_count > 0 && (
                <div>
                  <button
                    type="button"
                    class="primary"
                    disabled={!!part}
                    onClick={() => void download(found.archive_part_count)}
                  >
                    {part ?? "Save the archive"}
                  </button>
                </div>
              )}
              {found.receipt && (
                <>
                  <p class="soft small">
                    The receipt is signed with <code>{found.receipt.key_id}</code>, whose public key
                    stands in <a href="/.well-known/shoptrail-receipts.json">shoptrail-receipts.json</a>.
                    It doesn't say who was erased.
                  </p>
                  <pre tabIndex={0} aria-label="The receipt">{JSON.stringify(JSON.parse(found.receipt.content), null, 2)}</pre>
                  <Copy text={found.receipt.signature} label="the signature" />
                  <div>
                    <button
                      type="button"
                      onClick={() =>
                        saveFile(
                          `${uid}.receipt.json`,
                          new Blob([JSON.stringify(found.receipt)], { type: "application/json" }),
                        )
                      }
                    >
                      Save the receipt
                    </button>
                  </div>
                </>
              )}
              {failure && <Failure error={failure} />}
            </div>
          );
        }}
      </Show>
    </Card>
  );
}
