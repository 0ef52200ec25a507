/** What people look for, and what they don't find. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, percent } from "../format";
import type { PageProps } from "../pages";
import { asked } from "../reports";
import { Card, Empty, Segments, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";

interface Term {
  name: string;
  searches: number;
  without: number;
}

const COLUMNS: Column<Term>[] = [
  { name: "Term", cell: (row) => row.name || "(empty)", csv: (row) => row.name },
  { name: "Searches", num: true, cell: (row) => count(row.searches), csv: (row) => row.searches },
  {
    name: "Found nothing",
    num: true,
    cell: (row) => count(row.without),
    csv: (row) => row.without,
  },
  {
    name: "Share",
    num: true,
    cell: (row) =>
      row.without ? (
        <span class={row.without === row.searches ? "badge bad" : "badge warn"}>
          {percent(row.without / row.searches)}
        </span>
      ) : (
        "–"
      ),
    csv: (row) => (row.searches ? row.without / row.searches : 0),
  },
];
const KINDS = [
  ["", "All"],
  ["without", "Found nothing"],
] as const;

export function Searches({ view }: PageProps): JSX.Element {
  const loaded = useData(view.text, async (signal) => {
    const measures = ["MEASURE_SEARCHES", "MEASURE_SEARCHES_WITHOUT_RESULT"] as const;
    const [all, without] = await Promise.all(
      measures.map((measure) =>
        get(
          "/v1/stores/{store_uid}/reports/measures",
          { store_uid: view.store },
          { ...asked(view.range, view), measure },
          signal,
        ),
      ),
    );
    const lacking = new Map(without?.series.map((each) => [each.name, Number(each.total_count)]));
    return (all?.series ?? []).map((each): Term => ({
      name: each.name,
      searches: Number(each.total_count),
      without: lacking.get(each.name) ?? 0,
    }));
  });
  const only = view.one("only");
  const shown = (loaded.data ?? [])
    .filter((term) => !only || term.without > 0)
    .sort((a, b) => (only ? b.without - a.without : 0));
  useEffect(() => {
    setExporter(() => ({ name: "searches", rows: rowsOf(COLUMNS, shown) }));
    return () => setExporter(null);
  });
  return (
    <Card
      flush
      title="Search terms"
      tools={
        <Segments
          label="Which"
          options={KINDS}
          value={only ? "without" : ""}
          onChange={(value) => setParameters({ only: value }, { replace: true })}
        />
      }
    >
      <Show of={loaded}>
        {() =>
          shown.length ? (
            <Table label="Search terms" columns={COLUMNS} rows={shown.slice(0, 200)} keyOf={(row) => row.name} />
          ) : (
            <Empty title={only ? "Every search found something" : "No searches in this range"}>
              <p>
                Send <code>Products Searched</code> with <code>query</code> and, to learn what is
                missing, <code>results_count</code>.
              </p>
            </Empty>
          )
        }
      </Show>
    </Card>
  );
}
