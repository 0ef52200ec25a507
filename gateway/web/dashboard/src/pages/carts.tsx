/** What becomes of carts: ordered, abandoned, brought back. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { Chart } from "../chart";
import { setExporter } from "../csv";
import { useData } from "../data";
import { Filters } from "../filters";
import { count, difference, money, percent } from "../format";
import type { PageProps } from "../pages";
import { asked, both } from "../reports";
import { Card, Empty, HowToSend, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";
import { Breakdown } from "./funnel";

type Figures = Schemas["query.CartFigures"];
type Row = Schemas["query.CartRow"];

const PAUSES = [
  ["1800s", "30 minutes"],
  ["3600s", "1 hour"],
  ["86400s", "1 day"],
] as const;
const OUTCOMES = [
  ["ordered_count", "Ordered", "--good"],
  ["recovered_count", "Recovered", "--accent"],
  ["abandoned_count", "Abandoned", "--bad"],
  ["emptied_count", "Emptied", "--before"],
  ["open_count", "Still open", "--warn"],
] as const;

const of = (figures: Figures | undefined, field: (typeof OUTCOMES)[number][0]): number =>
  Number(figures?.[field] ?? 0);

const COLUMNS: Column<Row>[] = [
  { name: "Value", cell: (row) => row.value || "(none)", csv: (row) => row.value },
  {
    name: "Carts",
    num: true,
    cell: (row) => count(row.figures?.cart_count ?? 0),
    csv: (row) => Number(row.figures?.cart_count ?? 0),
  },
  ...OUTCOMES.slice(0, 3).map(([field, name]): Column<Row> => ({
    name,
    num: true,
    cell: (row) => count(of(row.figures, field)),
    csv: (row) => of(row.figures, field),
  })),
  {
    name: "Abandonment",
    num: true,
    cell: (row) => rate(row.figures?.abandonment_rate),
    csv: (row) => row.figures?.abandonment_rate ?? "",
  },
];

const rate = (value: number | undefined): string => (value === undefined ? "–" : percent(value));

export function Carts({ view }: PageProps): JSX.Element {
  const pause = view.one("after", "3600s");
  const breakdown = view.one("breakdown");
  const filters = view.all("filter");
  const loaded = useData(view.text, (signal) =>
    both(view, (range) =>
      get(
        "/v1/stores/{store_uid}/reports/carts",
        { store_uid: view.store },
        { ...asked(range, view), abandoned_after: pause, breakdown, filters },
        signal,
      ),
    ),
  );
  useEffect(() => {
    setExporter(() => {
      const now = loaded.data?.now;
      if (!now) return null;
      if (now.rows.length) return { name: "carts", rows: rowsOf(COLUMNS, now.rows) };
      return {
        name: "carts",
        rows: [
          ["Period", "Carts", ...OUTCOMES.map(([, name]) => name)],
          ...now.periods.map((figures, index) => [
            now.period_times[index] ?? "",
            Number(figures.cart_count),
            ...OUTCOMES.map(([field]) => of(figures, field)),
          ]),
        ],
      };
    });
    return () => setExporter(null);
  });
  return (
    <div class="stack">
      <div class="row">
        <label class="field">
          Abandoned after
          <select value={pause} onChange={(event) => setParameters({ after: event.currentTarget.value })}>
            {PAUSES.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <Breakdown value={breakdown} />
      </div>
      <Filters filters={filters} />
      <Show of={loaded}>
        {({ now, before }) => {
          const total = Number(now.total?.cart_count ?? 0);
          if (!total) {
            return (
              <Card>
                <Empty title="No carts in this range">
                  <HowToSend event="Product Added" />
                </Empty>
              </Card>
            );
          }
          const value = (figures: Figures | undefined, field: "abandoned_value" | "recovered_value"): string =>
            figures?.[field].map((each) => money(each.amount, each.currency)).join(" + ") ?? "";
          return (
            <div class="stack">
              <section class="card tiles five" aria-label="What became of carts">
                {OUTCOMES.map(([field, name]) => {
                  const [is, was] = [of(now.total, field), of(before?.total, field)];
                  const change = before ? difference(is, was) : null;
                  const worth =
                    field === "abandoned_count"
                      ? value(now.total, "abandoned_value")
                      : field === "recovered_count"
                        ? value(now.total, "recovered_value")
                        : "";
                  return (
                    <div key={field} class="tile">
                      <span class="label">{name}</span>
                      <span class="value" data-carts={field}>{count(is)}</span>
                      <span class="than">
                        {percent(is / total)}
                        {worth && ` · ${worth}`}
                      </span>
                      <span class="than">{change && `${change} from ${count(was)}`}</span>
                    </div>
                  );
                })}
              </section>
              <Card
                title={`${rate(now.total?.abandonment_rate)} abandoned, of which ${rate(now.total?.recovery_rate)} recovered`}
                tools={<span class="soft small">{count(total)} carts</span>}
              >
                <Chart
                  label="Carts"
                  times={now.period_times}
                  interval={view.range.interval}
                  zone={view.zone}
                  lines={OUTCOMES.slice(0, 3).map(([field, name, color]) => ({
                    name,
                    color,
                    values: now.periods.map((figures) => of(figures, field)),
                  }))}
                  open={view.range.open}
                  format={count}
                />
              </Card>
              {now.rows.length > 0 && (
                <Card flush title="By value">
                  <Table label="Carts by value" columns={COLUMNS} rows={now.rows} keyOf={(row) => row.value} />
                </Card>
              )}
            </div>
          );
        }}
      </Show>
    </div>
  );
}
