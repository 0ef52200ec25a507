/** What led to orders, and what those came to. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { Filters } from "../filters";
import { count, money } from "../format";
import type { PageProps } from "../pages";
import { askedWhole } from "../reports";
import { Card, Empty, HowToSend, Segments, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";

type Row = Schemas["query.AttributionRow"];

const MODELS = [
  ["ATTRIBUTION_MODEL_LAST_TOUCH", "Last touch"],
  ["ATTRIBUTION_MODEL_FIRST_TOUCH", "First touch"],
] as const;
const TOUCHES = [
  ["campaign", "Campaign"],
  ["referrer", "Referrer"],
  ["page", "Page"],
  ["device", "Device"],
] as const;
const LOOKBACKS = [
  ["86400s", "1 day"],
  ["604800s", "7 days"],
  ["2592000s", "30 days"],
  ["7776000s", "90 days"],
] as const;

const amounts = (row: Row, field: "gross" | "net"): JSX.Element | string =>
  row.revenue.length ? (
    <>
      {row.revenue.map((each) => (
        <div key={each.currency}>{money(each[field], each.currency)}</div>
      ))}
    </>
  ) : (
    "–"
  );

const written = (row: Row, field: "gross" | "net"): string =>
  row.revenue.map((each) => `${each[field]} ${each.currency}`).join("; ");

export function Attribution({ view }: PageProps): JSX.Element {
  const model = MODELS.find(([value]) => value === view.one("model"))?.[0] ?? "ATTRIBUTION_MODEL_LAST_TOUCH";
  const touch = TOUCHES.find(([value]) => value === view.one("touch")) ?? TOUCHES[0];
  const lookback = view.one("lookback", "2592000s");
  const filters = view.all("filter");
  const loaded = useData(view.text, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/attribution",
      { store_uid: view.store },
      { ...askedWhole(view.range), model, breakdown: touch[0], lookback, filters },
      signal,
    ),
  );
  const columns: Column<Row>[] = [
    {
      name: touch[1],
      cell: (row) => row.value || <span class="soft">(no touch)</span>,
      csv: (row) => row.value,
    },
    { name: "Orders", num: true, cell: (row) => count(row.order_count), csv: (row) => Number(row.order_count) },
    { name: "Gross", num: true, hideNarrow: true, cell: (row) => amounts(row, "gross"), csv: (row) => written(row, "gross") },
    { name: "Net", num: true, cell: (row) => amounts(row, "net"), csv: (row) => written(row, "net") },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "attribution", rows: rowsOf(columns, loaded.data?.rows ?? []) }));
    return () => setExporter(null);
  });
  return (
    <div class="stack">
      <div class="row">
        <Segments
          label="Which touch counts"
          options={MODELS}
          value={model}
          onChange={(value) => setParameters({ model: value }, { replace: true })}
        />
        <Segments
          label="What a touch is"
          options={TOUCHES}
          value={touch[0]}
          onChange={(value) => setParameters({ touch: value }, { replace: true })}
        />
        <select
          aria-label="How long before the order"
          value={lookback}
          onChange={(event) => setParameters({ lookback: event.currentTarget.value })}
        >
          {LOOKBACKS.map(([value, name]) => (
            <option key={value} value={value}>
              within {name}
            </option>
          ))}
        </select>
      </div>
      <Filters filters={filters} />
      <Card flush title="Orders put down to">
        <Show of={loaded}>
          {(data) =>
            data.rows.length ? (
              <Table label="Attribution" columns={columns} rows={data.rows} keyOf={(row) => row.value} />
            ) : (
              <Empty title="No orders in this range">
                <HowToSend event="Order Completed" />
              </Empty>
            )
          }
        </Show>
      </Card>
    </div>
  );
}
