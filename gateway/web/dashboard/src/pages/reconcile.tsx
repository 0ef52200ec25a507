/** The shop's own list of paid orders, held against what events told of. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, post, type Schemas } from "../api";
import { setExporter } from "../csv";
import { count, money, percent, spoken } from "../format";
import type { PageProps } from "../pages";
import { askedWhole } from "../reports";
import { Card, Empty, Failure, Segments, Table, rowsOf, type Column } from "../ui";

type Answer = Schemas["query.ReconcileOrdersResponse"];
type Counts = Schemas["query.ReconciliationCounts"];
type Difference = Schemas["query.OrderDifference"];
type Row = Schemas["query.ReconciliationRow"];

const COUNTS = [
  ["equal_count", "Equal"],
  ["missing_count", "Missing"],
  ["extra_count", "Extra"],
  ["wrong_amount_count", "Wrong amount"],
  ["doubled_count", "Doubled"],
] as const;
const BY = [
  ["by_payment_method", "Payment method"],
  ["by_browser", "Browser"],
  ["by_consent", "Consent"],
] as const;
const TRUSTS = [
  ["TRUST_UNSPECIFIED", "All orders"],
  ["TRUST_CONFIRMED", "Confirmed"],
  ["TRUST_CLAIMED", "Claimed"],
] as const;
const EXAMPLE = `order_id,total,currency,payment_method
o-1,68.90,EUR,card
o-2,12.50,EUR,invoice`;

const of = (counts: Counts | undefined, field: keyof Counts): number => Number(counts?.[field] ?? 0);

export function Reconcile({ view }: PageProps): JSX.Element {
  const [list, setList] = useState<{ name: string; text: string }>();
  const [trust, setTrust] = useState<(typeof TRUSTS)[number][0]>("TRUST_UNSPECIFIED");
  const [by, setBy] = useState<(typeof BY)[number][0]>("by_payment_method");
  const [answer, setAnswer] = useState<Answer>();
  const [differences, setDifferences] = useState<Difference[]>([]);
  const [failure, setFailure] = useState<ApiError>();
  const [busy, setBusy] = useState(false);

  const compare = async (): Promise<void> => {
    if (!list) return;
    setBusy(true);
    setFailure(undefined);
    setAnswer(undefined);
    const found: Difference[] = [];
    try {
      let token = "";
      do {
        const page: Answer = await post(
          "/v1/stores/{store_uid}/orders:reconcile",
          { store_uid: view.store },
          {
            ...askedWhole(view.range),
            format: list.text.trimStart().startsWith("{") ? "ORDER_LIST_FORMAT_NDJSON" : "ORDER_LIST_FORMAT_CSV",
            content: list.text,
            trust,
            page_size: 5000,
            page_token: token,
          },
        );
        found.push(...page.differences);
        token = page.next_page_token;
        setAnswer(page);
        setDifferences([...found]);
      } while (token && found.length < 50_000);
    } catch (error) {
      setFailure(error instanceof ApiError ? error : new ApiError(0, String(error), []));
    }
    setBusy(false);
  };

  const columns: Column<Difference>[] = [
    { name: "Order", cell: (row) => <code>{row.order_id}</code>, csv: (row) => row.order_id },
    {
      name: "Difference",
      cell: (row) => <span class="badge bad">{spoken(row.kind, "ORDER_DIFFERENCE_KIND_").toLowerCase()}</span>,
      csv: (row) => spoken(row.kind, "ORDER_DIFFERENCE_KIND_"),
    },
    {
      name: "The shop's list",
      num: true,
      cell: (row) => (row.listed ? money(row.listed.amount, row.listed.currency) : "–"),
      csv: (row) => (row.listed ? `${row.listed.amount} ${row.listed.currency}` : ""),
    },
    {
      name: "Events",
      num: true,
      cell: (row) => (row.told ? money(row.told.amount, row.told.currency) : "–"),
      csv: (row) => (row.told ? `${row.told.amount} ${row.told.currency}` : ""),
    },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "differences", rows: rowsOf(columns, differences) }));
    return () => setExporter(null);
  });
  const rows: Row[] = answer?.[by] ?? [];
  const rowColumns: Column<Row>[] = [
    { name: BY.find(([value]) => value === by)?.[1] ?? "", cell: (row) => row.value || "(not known)" },
    { name: "Listed", num: true, cell: (row) => count(of(row.counts, "listed_count")) },
    ...COUNTS.map(([field, name]): Column<Row> => ({
      name,
      num: true,
      cell: (row) => count(of(row.counts, field)),
    })),
  ];
  return (
    <div class="stack">
      <Card title="Your list of paid orders">
        <div class="stack">
          <p class="soft">
            All orders that were paid for in the chosen range, as CSV or as a JSON object in each
            line. Nothing of it is kept.
          </p>
          <div class="row">
            <label class="field">
              File
              <input
                type="file"
                accept=".csv,.ndjson,.jsonl,.tsv,.txt,text/csv"
                onChange={(event) => {
                  const file = event.currentTarget.files?.[0];
                  if (file) void file.text().then((text) => setList({ name: file.name, text }));
                }}
              />
            </label>
            <Segments label="Which orders" options={TRUSTS} value={trust} onChange={setTrust} />
            <button type="button" class="primary" disabled={!list || busy} onClick={() => void compare()}>
              {busy ? `Comparing… ${count(differences.length)}` : "Compare"}
            </button>
          </div>
          {!answer && <pre tabIndex={0} aria-label="An example of a list">{EXAMPLE}</pre>}
          {failure && <Failure error={failure} />}
        </div>
      </Card>
      {answer && (
        <>
          <section class="card tiles five" aria-label="Orders">
            {COUNTS.map(([field, name]) => (
              <div key={field} class="tile">
                <span class="label">{name}</span>
                <span class="value" data-orders={field}>{count(of(answer.total, field))}</span>
                <span class="than">
                  {of(answer.total, "listed_count") > 0 &&
                    percent(of(answer.total, field) / of(answer.total, "listed_count"))}
                </span>
              </div>
            ))}
          </section>
          <div class="note">
            {answer.money.map((each) => (
              <p key={each.currency}>
                Your list {money(each.listed, each.currency)}, events {money(each.told, each.currency)}
              </p>
            ))}
          </div>
          {rows.length > 0 && (
            <Card
              flush
              title="Where they differ"
              tools={<Segments label="By" options={BY} value={by} onChange={setBy} />}
            >
              <Table label="By" columns={rowColumns} rows={rows} keyOf={(row) => row.value} />
            </Card>
          )}
          <Card flush title="Differences" tools={<span class="soft small">{count(differences.length)}</span>}>
            {differences.length ? (
              <Table
                label="Differing orders"
                columns={columns}
                rows={differences.slice(0, 500)}
                keyOf={(row) => `${row.order_id} ${row.kind}`}
              />
            ) : (
              <Empty title="Every order of your list was told of, with the same amount" />
            )}
          </Card>
        </>
      )}
    </div>
  );
}
