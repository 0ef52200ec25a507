/** Where sessions come from, and how they go. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, difference, duration, percent } from "../format";
import type { PageProps } from "../pages";
import { asked } from "../reports";
import { Chart } from "../chart";
import { Card, Empty, HowToSend, Segments, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";

type Row = Schemas["query.SessionRow"];

const BREAKDOWNS = [
  ["SESSION_BREAKDOWN_CAMPAIGN", "Campaigns"],
  ["SESSION_BREAKDOWN_REFERRER", "Referrers"],
  ["SESSION_BREAKDOWN_ENTRY_PAGE", "Entry pages"],
  ["SESSION_BREAKDOWN_EXIT_PAGE", "Exit pages"],
] as const;

const sessions = (row: Row): number => Number(row.figures?.session_count ?? 0);
const per = (value: number, row: Row): number => (sessions(row) ? value / sessions(row) : 0);
const length = (row: Row): string =>
  `${per(Number.parseFloat(row.figures?.duration ?? "0"), row)}s`;

const COLUMNS: Column<Row>[] = [
  { name: "Came from", cell: (row) => row.name || "(none)", csv: (row) => row.name },
  { name: "Sessions", num: true, cell: (row) => count(sessions(row)), csv: sessions },
  {
    name: "Bounced",
    num: true,
    cell: (row) => percent(per(Number(row.figures?.bounce_count ?? 0), row)),
    csv: (row) => per(Number(row.figures?.bounce_count ?? 0), row),
  },
  {
    name: "Pages a session",
    num: true,
    hideNarrow: true,
    cell: (row) => per(Number(row.figures?.page_count ?? 0), row).toFixed(1),
    csv: (row) => per(Number(row.figures?.page_count ?? 0), row),
  },
  {
    name: "Length",
    num: true,
    hideNarrow: true,
    cell: (row) => duration(length(row)),
    csv: (row) => Number.parseFloat(length(row)),
  },
];

export function Acquisition({ view }: PageProps): JSX.Element {
  const breakdown =
    BREAKDOWNS.find(([value]) => value === view.one("by"))?.[0] ?? "SESSION_BREAKDOWN_CAMPAIGN";
  const title = BREAKDOWNS.find(([value]) => value === breakdown)?.[1] ?? "";
  const loaded = useData(view.text, async (signal) => {
    const [now, before] = await Promise.all(
      [view.range, view.compared].map((range) =>
        range
          ? get(
              "/v1/stores/{store_uid}/reports/sessions",
              { store_uid: view.store },
              { ...asked(range, view), breakdown },
              signal,
            )
          : undefined,
      ),
    );
    return { now: now as NonNullable<typeof now>, before };
  });
  const earlier = new Map(loaded.data?.before?.rows.map((row) => [row.name, sessions(row)]));
  const columns: Column<Row>[] = [
    { ...(COLUMNS[0] as Column<Row>), name: title.replace(/s$/, "") },
    COLUMNS[1] as Column<Row>,
    ...(view.compared
      ? [
          {
            name: "Change",
            num: true,
            cell: (row: Row) => {
              const was = earlier.get(row.name) ?? 0;
              const change = difference(sessions(row), was);
              return change === null ? (
                <span class="soft">new</span>
              ) : (
                <span class={sessions(row) >= was ? "up" : "down"}>{change}</span>
              );
            },
            csv: (row: Row) => sessions(row) - (earlier.get(row.name) ?? 0),
          },
        ]
      : []),
    ...COLUMNS.slice(2),
  ];
  useEffect(() => {
    setExporter(() => ({ name: "acquisition", rows: rowsOf(columns, loaded.data?.now.rows ?? []) }));
    return () => setExporter(null);
  });
  return (
    <Show of={loaded}>
      {({ now, before }) =>
        Number(now.total?.session_count ?? 0) === 0 ? (
          <Card>
            <Empty title="No sessions in this range">
              <HowToSend />
            </Empty>
          </Card>
        ) : (
          <div class="stack">
            <Card title="Sessions">
              <Chart
                label="Sessions"
                times={now.period_times}
                interval={view.range.interval}
                zone={view.zone}
                height={200}
                lines={[
                  { name: "Sessions", values: now.periods.map((each) => Number(each.session_count)) },
                  ...(before
                    ? [
                        {
                          name: "Compared with",
                          values: before.periods.map((each) => Number(each.session_count)),
                          faint: true,
                        },
                      ]
                    : []),
                ]}
                open={view.range.open}
                  format={count}
              />
            </Card>
            <Card
              flush
              title="By"
              tools={
                <Segments
                  label="Sessions by"
                  options={BREAKDOWNS}
                  value={breakdown}
                  onChange={(value) => setParameters({ by: value }, { replace: true })}
                />
              }
            >
              <Table label={title} columns={columns} rows={now.rows} keyOf={(row) => row.name} />
            </Card>
          </div>
        )
      }
    </Show>
  );
}
