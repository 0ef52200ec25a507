/** What runs on a timetable: when it ran, what it did, and what nobody called. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, count, dateTime, duration, spoken } from "../format";
import type { PageProps } from "../pages";
import { Card, Empty, Failure, Show, Table, rowsOf, toast, type Column } from "../ui";
import { setParameters } from "../url";

const SERVICES = ["ingest", "query", "keys", "maintenance"] as const;
type Service = (typeof SERVICES)[number];
type Job = Schemas["maintenance.Job"] & { service: Service };
type Run = Schemas["maintenance.Run"];

const STATES: Record<string, string> = {
  RUN_STATE_SUCCEEDED: "good",
  RUN_STATE_FAILED: "bad",
  RUN_STATE_RUNNING: "warn",
};

export function Jobs({ view }: PageProps): JSX.Element {
  const [failure, setFailure] = useState<ApiError>();
  const [busy, setBusy] = useState("");
  const loaded = useData("jobs", async (signal) => {
    const answers = await Promise.all(
      SERVICES.map((service) => get("/v1/cron/{service}/jobs", { service }, undefined, signal)),
    );
    return answers.flatMap((answer, index) =>
      answer.jobs.map((job): Job => ({ ...job, service: SERVICES[index] ?? "ingest" })),
    );
  });
  const run = async (job: Job): Promise<void> => {
    setBusy(`${job.service} ${job.name}`);
    setFailure(undefined);
    try {
      const answer = await post("/v1/cron/{service}/{job}:run", { service: job.service, job: job.name });
      toast(`${job.name}: ${spoken(answer.outcome, "RUN_CRON_OUTCOME_").toLowerCase()}, ${count(answer.run?.row_count ?? 0)} rows.`);
      loaded.reload();
    } catch (error) {
      setFailure(error as ApiError);
    }
    setBusy("");
  };
  const columns: Column<Job>[] = [
    {
      name: "Job",
      cell: (row) => (
        <>
          <strong>{row.name}</strong> <span class="badge">{row.service}</span>
          <div class="soft small">{row.description}</div>
        </>
      ),
      csv: (row) => `${row.service} ${row.name}`,
    },
    { name: "Every", hideNarrow: true, cell: (row) => duration(row.period), csv: (row) => row.period ?? "" },
    {
      name: "Last run",
      cell: (row) =>
        row.last_run ? (
          <div class="row">
            <span class={`badge ${STATES[row.last_run.state] ?? ""}`}>{spoken(row.last_run.state, "RUN_STATE_").toLowerCase()}</span>
            <span class="soft small">{ago(row.last_run.start_time)}, {count(row.last_run.row_count)} rows</span>
          </div>
        ) : (
          <span class="soft">never</span>
        ),
      csv: (row) => row.last_run?.start_time ?? "",
    },
    {
      name: "Due",
      cell: (row) => (row.overdue ? <span class="badge bad">overdue</span> : ago(row.next_scheduled_time)),
      csv: (row) => (row.overdue ? "overdue" : (row.next_scheduled_time ?? "")),
    },
    {
      name: "",
      cell: (row) => (
        <div class="row">
          <button type="button" disabled={!!busy} onClick={() => void run(row)} aria-label={`Run ${row.name} of ${row.service}`}>
            {busy === `${row.service} ${row.name}` ? "Running…" : "Run"}
          </button>
          <button
            type="button"
            class="plain"
            onClick={() => setParameters({ service: row.service, job: row.name })}
            aria-label={`Runs of ${row.name} of ${row.service}`}
          >
            Runs
          </button>
        </div>
      ),
    },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "jobs", rows: rowsOf(columns, loaded.data ?? []) }));
    return () => setExporter(null);
  });
  const service = SERVICES.find((each) => each === view.one("service"));
  const overdue = (loaded.data ?? []).filter((job) => job.overdue);
  return (
    <div class="stack">
      {failure && <Failure error={failure} />}
      {overdue.length > 0 && (
        <div class="note bad" role="status">
          Nobody called in time: {overdue.map((job) => job.name).join(", ")}. “Run” catches up; see
          that a CronJob calls them.
        </div>
      )}
      <Card flush title="Jobs" tools={<button type="button" onClick={loaded.reload}>Look again</button>}>
        <Show of={loaded}>
          {(jobs) => <Table label="Jobs" columns={columns} rows={jobs} keyOf={(row) => `${row.service} ${row.name}`} />}
        </Show>
      </Card>
      {service && view.one("job") && <Runs service={service} job={view.one("job")} zone={view.zone} />}
    </div>
  );
}

function Runs(props: { service: Service; job: string; zone: string }): JSX.Element {
  const { service, job, zone } = props;
  const loaded = useData(`runs ${service} ${job}`, (signal) =>
    get("/v1/cron/{service}/runs", { service }, { job, page_size: 50 }, signal),
  );
  const columns: Column<Run>[] = [
    { name: "Scheduled for", cell: (row) => dateTime(row.scheduled_time, zone) },
    { name: "State", cell: (row) => <span class={`badge ${STATES[row.state] ?? ""}`}>{spoken(row.state, "RUN_STATE_").toLowerCase()}</span> },
    { name: "Rows", num: true, cell: (row) => count(row.row_count) },
    { name: "Calls", num: true, cell: (row) => count(row.attempt_count), hideNarrow: true },
    {
      name: "Took",
      num: true,
      cell: (row) =>
        row.end_time && row.start_time
          ? duration(`${(Date.parse(row.end_time) - Date.parse(row.start_time)) / 1000}s`)
          : "–",
    },
    { name: "Called by", cell: (row) => <span class="soft small">{row.caller}</span>, hideNarrow: true },
  ];
  return (
    <Card flush title={`Runs of ${job}`}>
      <Show of={loaded}>
        {(data) =>
          data.runs.length ? (
            <Table label={`Runs of ${job}`} columns={columns} rows={data.runs} keyOf={(row) => row.uid} />
          ) : (
            <Empty title="It never ran" />
          )
        }
      </Show>
    </Card>
  );
}
