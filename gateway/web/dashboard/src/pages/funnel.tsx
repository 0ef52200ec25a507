/** How many people get from a first step to a last, and where the others stay. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { get, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, percent } from "../format";
import { Filters } from "../filters";
import type { PageProps } from "../pages";
import { askedWhole } from "../reports";
import { Card, Empty, HowToSend, Icon, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";

const USUAL = ["Product Viewed", "Product Added", "Checkout Started", "Order Completed"];
const WINDOWS = [
  ["3600s", "1 hour"],
  ["86400s", "1 day"],
  ["604800s", "7 days"],
  ["2592000s", "30 days"],
] as const;
export const BREAKDOWNS = [
  ["", "Nothing"],
  ["device", "Device"],
  ["country", "Country"],
  ["campaign", "Campaign"],
  ["referrer", "Referrer"],
  ["page", "Page"],
] as const;

export function Funnel({ view }: PageProps): JSX.Element {
  const steps = view.all("step").length ? view.all("step") : USUAL;
  const length = view.one("window", "604800s");
  const breakdown = view.one("breakdown");
  const filters = view.all("filter");
  const loaded = useData(view.text, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/funnel",
      { store_uid: view.store },
      { ...askedWhole(view.range), steps, window: length, breakdown, filters },
      signal,
    ),
  );
  return (
    <div class="stack">
      <Card title="Steps">
        <div class="stack">
          <Steps key={steps.join("\n")} steps={steps} view={view} />
          <div class="row">
            <label class="field">
              Within
              <select
                value={length}
                onChange={(event) => setParameters({ window: event.currentTarget.value })}
              >
                {WINDOWS.map(([value, name]) => (
                  <option key={value} value={value}>
                    {name}
                  </option>
                ))}
              </select>
            </label>
            <Breakdown value={breakdown} />
          </div>
          <Filters filters={filters} />
        </div>
      </Card>
      <Show of={loaded}>{(data) => <Result steps={steps} rows={data.rows} />}</Show>
    </div>
  );
}

export function Breakdown({ value }: { value: string }): JSX.Element {
  const known = BREAKDOWNS.some(([each]) => each === value);
  return (
    <>
      <label class="field">
        Broken down by
        <select
          value={known ? value : "properties."}
          onChange={(event) => setParameters({ breakdown: event.currentTarget.value })}
        >
          {BREAKDOWNS.map(([each, name]) => (
            <option key={each} value={each}>
              {name}
            </option>
          ))}
          <option value="properties.">A property…</option>
        </select>
      </label>
      {!known && (
        <label class="field">
          Property
          <input
            value={value.replace("properties.", "")}
            placeholder="color"
            onChange={(event) =>
              setParameters({ breakdown: `properties.${event.currentTarget.value.trim()}` })
            }
          />
        </label>
      )}
    </>
  );
}

function Steps({ steps, view }: { steps: string[]; view: PageProps["view"] }): JSX.Element {
  const [edited, setEdited] = useState(steps);
  const catalogue = useData(`catalogue ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/event-catalogue", { store_uid: view.store }, {}, signal),
  );
  const change = (next: string[]): void => {
    setEdited(next);
    if (next.every((step) => step.trim())) setParameters({ step: next });
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        setParameters({ step: edited.filter((step) => step.trim()) });
      }}
    >
      <ol class="steps">
        {edited.map((step, index) => (
          <li key={index}>
            <span class="number" aria-hidden="true">
              {index + 1}
            </span>
            <input
              aria-label={`Step ${index + 1}`}
              list="event-names"
              value={step}
              placeholder="An event's name, or page:/cart"
              onInput={(event) =>
                setEdited(edited.map((each, at) => (at === index ? event.currentTarget.value : each)))
              }
              onChange={() => change(edited)}
            />
            <button
              type="button"
              class="plain"
              aria-label={`Move step ${index + 1} up`}
              disabled={index === 0}
              onClick={() => {
                const next = [...edited];
                next.splice(index - 1, 2, edited[index] ?? "", edited[index - 1] ?? "");
                change(next);
              }}
            >
              ↑
            </button>
            <button
              type="button"
              class="plain"
              aria-label={`Remove step ${index + 1}`}
              disabled={edited.length < 2}
              onClick={() => change(edited.filter((_, at) => at !== index))}
            >
              <Icon name="close" />
            </button>
          </li>
        ))}
      </ol>
      <datalist id="event-names">
        {catalogue.data?.events.map((each) => (
          <option key={`${each.type} ${each.name}`} value={each.name} />
        ))}
      </datalist>
      <button
        type="button"
        class="plain"
        disabled={edited.length >= 10}
        onClick={() => setEdited([...edited, ""])}
      >
        + Add a step
      </button>
    </form>
  );
}

type Row = Schemas["query.FunnelRow"];

function Result({ steps, rows }: { steps: string[]; rows: Row[] }): JSX.Element {
  const sums = steps.map((_, index) =>
    rows.reduce((sum, row) => sum + Number(row.person_counts[index] ?? 0), 0),
  );
  const first = sums[0] ?? 0;
  const columns: Column<Row>[] = [
    { name: "Value", cell: (row) => row.value || "(none)", csv: (row) => row.value },
    ...steps.map((step, index): Column<Row> => ({
      name: step,
      num: true,
      cell: (row) => count(row.person_counts[index] ?? 0),
      csv: (row) => Number(row.person_counts[index] ?? 0),
    })),
    {
      name: "All the way",
      num: true,
      cell: (row) => percent(rate(row)),
      csv: (row) => rate(row),
    },
  ];
  const rate = (row: Row): number => {
    const whole = Number(row.person_counts[0] ?? 0);
    return whole ? Number(row.person_counts[steps.length - 1] ?? 0) / whole : 0;
  };
  useEffect(() => {
    setExporter(() => ({ name: "funnel", rows: rowsOf(columns, rows) }));
    return () => setExporter(null);
  });
  if (!first) {
    return (
      <Card>
        <Empty title={`Nobody did “${steps[0]}” in this range`}>
          <HowToSend event={steps[0] || "Product Viewed"} />
        </Empty>
      </Card>
    );
  }
  const last = sums[sums.length - 1] ?? 0;
  return (
    <div class="stack">
      <Card
        title={`${percent(last / first)} get all the way`}
        tools={<span class="soft small">{count(last)} of {count(first)} people</span>}
      >
        <ol class="funnel">
          {steps.map((step, index) => {
            const people = sums[index] ?? 0;
            const before = index ? (sums[index - 1] ?? 0) : people;
            return (
              <li key={index}>
                <strong>{step}</strong>
                <span class="bar">
                  <svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">
                    <rect width={(people / first) * 100} height="1" />
                  </svg>
                </span>
                <span class="num">
                  <strong>{count(people)}</strong>{" "}
                  <span class="soft">{percent(people / first)}</span>
                  <span class="drop" style={{ display: "block" }}>
                    {index > 0 && before > people && `${count(before - people)} left before`}
                    {index > 0 && before === people && "nobody left"}
                  </span>
                </span>
              </li>
            );
          })}
        </ol>
      </Card>
      {rows.length > 1 && (
        <Card title="By value" flush>
          <Table label="The funnel by value" columns={columns} rows={rows} keyOf={(row) => row.value} />
        </Card>
      )}
    </div>
  );
}
