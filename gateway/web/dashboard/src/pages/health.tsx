/** How each service is right now: whether it answers, how far behind it is, what waits. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { ApiError, get, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, count, duration } from "../format";
import type { PageProps } from "../pages";
import { Card, Show, Table, rowsOf, type Column } from "../ui";
import { follow, linkTo } from "../url";

const SERVICES = ["ingest", "query", "keys", "maintenance"] as const;
type Service = (typeof SERVICES)[number];
type Gauge = Schemas["maintenance.Gauge"] & { service: Service };

interface Answer {
  service: Service;
  milliseconds: number;
  gauges: Gauge[];
  overdue: string[];
  failure?: string;
}

const LOOK_AGAIN_MILLISECONDS = 5000;
/** From which value on somebody should look. */
const ALARMS: Record<string, number> = {
  query_projector_lag_events: 50_000,
  query_projector_stopped: 1,
  query_silent_events: 1,
  ingest_journal_oldest_seconds: 60,
  ingest_log_out_of_reach: 1,
  privacy_case_seconds: 300,
  cron_overdue: 1,
};

/** What is told elsewhere on the page, and what nobody looks for in the night. */
const APART = /^(cron_|grpc_|process_(max|virtual|start)_)/;

const isAlarming = (gauge: Gauge): boolean => gauge.value >= (ALARMS[gauge.name] ?? Infinity);

function value(gauge: Gauge): string {
  if (gauge.name.endsWith("_bytes")) {
    return new Intl.NumberFormat(undefined, {
      style: "unit",
      unit: "megabyte",
      maximumFractionDigits: 1,
    }).format(gauge.value / 1e6);
  }
  if (/_time(stamp)?_seconds$/.test(gauge.name)) return gauge.value ? ago(new Date(gauge.value * 1000).toISOString()) : "never";
  return gauge.name.endsWith("_seconds") ? duration(`${gauge.value}s`) : count(gauge.value);
}

async function ask(service: Service, signal: AbortSignal): Promise<Answer> {
  const began = performance.now();
  try {
    const [{ gauges }, { jobs }] = await Promise.all([
      get("/v1/services/{service}/gauges", { service }, undefined, signal),
      get("/v1/cron/{service}/jobs", { service }, undefined, signal),
    ]);
    return {
      service,
      milliseconds: performance.now() - began,
      gauges: gauges.map((gauge) => ({ ...gauge, service })),
      overdue: jobs.filter((job) => job.overdue).map((job) => job.name),
    };
  } catch (error) {
    // One service that is away must not hide the others.
    if (!(error instanceof ApiError) || error.status === 401) throw error;
    return { service, milliseconds: 0, gauges: [], overdue: [], failure: error.message };
  }
}

const COLUMNS: Column<Gauge>[] = [
  {
    name: "Measured",
    cell: (row) => (
      <>
        {row.description}{" "}
        {row.labels.map((label) => (
          <span key={label.name} class="badge">
            {label.name} {label.value}
          </span>
        ))}
        <div class="soft small">
          <code>{row.name}</code>
        </div>
      </>
    ),
    csv: (row) => [row.service, row.name, ...row.labels.map((label) => label.value)].join(" "),
  },
  {
    name: "Now",
    num: true,
    cell: (row) => (isAlarming(row) ? <span class="badge bad">{value(row)}</span> : value(row)),
    csv: (row) => row.value,
  },
];

export function Health(_: PageProps): JSX.Element {
  const loaded = useData("health", (signal) =>
    Promise.all(SERVICES.map((service) => ask(service, signal))),
  );
  useEffect(() => {
    const timer = setInterval(loaded.reload, LOOK_AGAIN_MILLISECONDS);
    return () => clearInterval(timer);
  }, [loaded.reload]);
  useEffect(() => {
    setExporter(() => ({
      name: "health",
      rows: rowsOf(COLUMNS, (loaded.data ?? []).flatMap((answer) => answer.gauges)),
    }));
    return () => setExporter(null);
  });
  return (
    <Show of={loaded}>
      {(answers) => {
        const away = answers.filter((answer) => answer.failure);
        const alarms = answers.flatMap((answer) => answer.gauges.filter(isAlarming));
        const overdue = answers.flatMap((answer) => answer.overdue);
        const isWell = !away.length && !alarms.length && !overdue.length;
        return (
          <div class="stack">
            <div class={isWell ? "note" : "note bad"} role="status">
              {isWell ? (
                <strong>All services answer, and nothing waits.</strong>
              ) : (
                <ul>
                  {away.map((answer) => (
                    <li key={answer.service}>
                      {answer.service}: {answer.failure}
                    </li>
                  ))}
                  {alarms.map((gauge) => (
                    <li key={`${gauge.service} ${gauge.name} ${JSON.stringify(gauge.labels)}`}>
                      {gauge.service}: {gauge.description} {value(gauge)}
                    </li>
                  ))}
                  {overdue.length > 0 && (
                    <li>
                      Overdue <a href={linkTo("jobs")} onClick={follow}>jobs</a>: {overdue.join(", ")}
                    </li>
                  )}
                </ul>
              )}
            </div>
            <section class="card tiles four" aria-label="Services">
              {answers.map((answer) => (
                <div key={answer.service} class="tile">
                  <span class="label">{answer.service}</span>
                  <span class="value" data-service={answer.service}>
                    {answer.failure ? "Away" : "Up"}
                  </span>
                  <span class="than">
                    {!answer.failure && `answers in ${count(Math.round(answer.milliseconds))} ms`}
                  </span>
                </div>
              ))}
            </section>
            {answers.map(
              (answer) =>
                answer.gauges.length > 0 && (
                  <Card key={answer.service} flush title={answer.service}>
                    <Table
                      label={`Gauges of ${answer.service}`}
                      columns={COLUMNS}
                      rows={answer.gauges.filter((gauge) => !APART.test(gauge.name))}
                      keyOf={(row) => `${row.name} ${JSON.stringify(row.labels)}`}
                    />
                  </Card>
                ),
            )}
            <p class="soft small">
              From one replica of each service. What all of them measured, and for how long, is for
              Prometheus and the dashboards in <code>deploy/observability</code>.
            </p>
          </div>
        );
      }}
    </Show>
  );
}
