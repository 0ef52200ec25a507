/** The shop's day at a glance. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get } from "../api";
import { Chart, Sparkline, type Line } from "../chart";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, dateTime, difference, money, percent, period, short, shortMoney } from "../format";
import type { PageProps } from "../pages";
import { asked, askedWhole, both, numbers, type Asked } from "../reports";
import type { Range } from "../time";
import { COMPARISONS } from "../time";
import { Bars, Card, Empty, HowToSend, Show } from "../ui";
import { linkTo, setParameters } from "../url";

interface Figures {
  asOf: string | undefined;
  times: string[];
  visitors: { total: number; periods: number[] };
  sessions: { total: number; periods: number[] };
  currencies: {
    currency: string;
    orders: number;
    net: string;
    average: string;
    netPeriods: number[];
    averagePeriods: number[];
    orderPeriods: number[];
  }[];
  orders: { total: number; periods: number[] };
}

interface Metric {
  key: string;
  label: string;
  value: string;
  now: number;
  before: number | undefined;
  periods: number[];
  beforePeriods: number[];
  format: (value: number) => string;
  axis: (value: number) => string;
}

const LISTS = [
  ["MEASURE_PAGE_VIEWS_BY_PATH", "Pages"],
  ["MEASURE_PAGE_VIEWS_BY_REFERRER", "Referrers"],
  ["MEASURE_PAGE_VIEWS_BY_CAMPAIGN", "Campaigns"],
  ["MEASURE_PAGE_VIEWS_BY_DEVICE", "Devices"],
  ["MEASURE_PAGE_VIEWS_BY_COUNTRY", "Countries"],
] as const;

export function Overview({ view }: PageProps): JSX.Element {
  const store = { store_uid: view.store };
  const loadRange = async (range: Range, signal: AbortSignal): Promise<Figures> => {
    const query = asked(range, view);
    const load = (asking: Asked) =>
      Promise.all([
        get("/v1/stores/{store_uid}/reports/visitors", store, asking, signal),
        get("/v1/stores/{store_uid}/reports/sessions", store, asking, signal),
        get("/v1/stores/{store_uid}/reports/revenue", store, asking, signal),
      ]);
    const [visitors, sessions, revenue] = await load(query);
    // As far into its last day as we are into ours, for a comparison that is fair.
    const [exactVisitors, exactSessions, exactRevenue] =
      view.range.open && range !== view.range && range.interval === "DAY"
        ? await load({ ...query, interval: "INTERVAL_HOUR" })
        : [visitors, sessions, revenue];
    const times = visitors.period_times;
    const totals = new Map(exactRevenue.currencies.map((each) => [each.currency, each.total]));
    const currencies = revenue.currencies
      .map((each) => ({
        currency: each.currency,
        orders: Number(totals.get(each.currency)?.order_count ?? 0),
        net: totals.get(each.currency)?.net ?? "0.00",
        average: totals.get(each.currency)?.average_order ?? "",
        netPeriods: each.periods.map((figures) => Number(figures.net)),
        averagePeriods: each.periods.map((figures) => Number(figures.average_order || 0)),
        orderPeriods: each.periods.map((figures) => Number(figures.order_count)),
      }))
      .sort((a, b) => b.orders - a.orders);
    return {
      asOf: visitors.as_of?.time,
      times,
      visitors: { total: Number(exactVisitors.visitor_count), periods: numbers(visitors.counts) },
      sessions: {
        total: Number(exactSessions.total?.session_count ?? 0),
        periods: sessions.periods.map((figures) => Number(figures.session_count)),
      },
      currencies,
      orders: {
        total: currencies.reduce((sum, each) => sum + each.orders, 0),
        periods: times.map((_, index) =>
          currencies.reduce((sum, each) => sum + (each.orderPeriods[index] ?? 0), 0),
        ),
      },
    };
  };
  const figures = useData(view.text, (signal) => both(view, (range) => loadRange(range, signal)));
  return (
    <div class="stack">
      <Show of={figures}>
        {({ now, before }) => <Glance view={view} now={now} before={before} />}
      </Show>
      <div class="grid">
        {LISTS.map(([measure, title]) => (
          <TopList key={measure} view={view} measure={measure} title={title} />
        ))}
        <TopProducts view={view} />
      </div>
    </div>
  );
}

function metricsOf(now: Figures, before: Figures | undefined, currency: string): Metric[] {
  const mine = (figures: Figures | undefined): Figures["currencies"][number] | undefined =>
    figures?.currencies.find((each) => each.currency === currency);
  const [own, then] = [mine(now), mine(before)];
  const ratio = (part: number, of: number): number => (of ? part / of : 0);
  const whole = { format: count, axis: short };
  const amount = {
    format: (value: number) => money(value.toFixed(2), currency),
    axis: (value: number) => shortMoney(value, currency),
  };
  const had = (value: number | undefined): number | undefined => (before ? (value ?? 0) : undefined);
  return [
    {
      key: "visitors", label: "Visitors", value: short(now.visitors.total),
      now: now.visitors.total, before: before?.visitors.total,
      periods: now.visitors.periods, beforePeriods: before?.visitors.periods ?? [], ...whole,
    },
    {
      key: "sessions", label: "Sessions", value: short(now.sessions.total),
      now: now.sessions.total, before: before?.sessions.total,
      periods: now.sessions.periods, beforePeriods: before?.sessions.periods ?? [], ...whole,
    },
    {
      key: "orders", label: "Orders", value: short(now.orders.total),
      now: now.orders.total, before: before?.orders.total,
      periods: now.orders.periods, beforePeriods: before?.orders.periods ?? [], ...whole,
    },
    {
      key: "revenue", label: "Net revenue", value: money(own?.net ?? "0.00", currency),
      now: Number(own?.net ?? 0), before: had(Number(then?.net ?? 0)),
      periods: own?.netPeriods ?? now.times.map(() => 0),
      beforePeriods: then?.netPeriods ?? before?.times.map(() => 0) ?? [], ...amount,
    },
    {
      key: "conversion", label: "Conversion",
      value: percent(ratio(now.orders.total, now.sessions.total)),
      now: ratio(now.orders.total, now.sessions.total),
      before: before && ratio(before.orders.total, before.sessions.total),
      periods: now.orders.periods.map((part, index) => ratio(part, now.sessions.periods[index] ?? 0)),
      beforePeriods:
        before?.orders.periods.map((part, index) => ratio(part, before.sessions.periods[index] ?? 0)) ?? [],
      format: percent, axis: percent,
    },
    {
      key: "average", label: "Average order",
      value: own?.average ? amount.format(Number(own.average)) : "–",
      now: Number(own?.average || 0), before: had(Number(then?.average || 0)),
      periods: own?.averagePeriods ?? now.times.map(() => 0),
      beforePeriods: then?.averagePeriods ?? before?.times.map(() => 0) ?? [], ...amount,
    },
  ];
}

function Glance(props: {
  view: PageProps["view"];
  now: Figures;
  before: Figures | undefined;
}): JSX.Element {
  const { view, now, before } = props;
  const known = now.currencies.map((each) => each.currency);
  const currency = view.one("currency", known[0] ?? before?.currencies[0]?.currency ?? "EUR");
  const metrics = metricsOf(now, before, currency);
  const metric = metrics.find((each) => each.key === view.one("metric")) ?? metrics[0];
  useEffect(() => {
    setExporter(() => ({
      name: "overview",
      rows: [
        ["Period", ...metrics.map((each) => each.label), "Currency"],
        ...now.times.map((time, index) => [
          time,
          ...metrics.map((each) => each.periods[index] ?? 0),
          currency,
        ]),
      ],
    }));
    return () => setExporter(null);
  });
  if (!metric) return <></>;
  if (!now.visitors.total && !now.orders.total && !before?.visitors.total) {
    return (
      <Card>
        <Empty title="No visitors in this range">
          <HowToSend />
        </Empty>
      </Card>
    );
  }
  const than = COMPARISONS[view.comparison].toLowerCase();
  const lines: Line[] = [
    { name: metric.label, values: metric.periods },
    ...(before
      ? [{ name: COMPARISONS[view.comparison], values: metric.beforePeriods, faint: true }]
      : []),
  ];
  return (
    <div class="stack">
      <section class="card tiles" aria-label="Figures">
        {metrics.map((each) => {
          const change = each.before === undefined ? null : difference(each.now, each.before);
          const grew = each.before !== undefined && each.now > each.before;
          const was = each.before === undefined ? "" : each.axis(each.before);
          return (
            <button
              key={each.key}
              type="button"
              class="tile"
              aria-pressed={each === metric}
              title={each.key === "conversion" ? "Orders by sessions" : undefined}
              onClick={() =>
                setParameters({ metric: each.key === "visitors" ? "" : each.key }, { replace: true })
              }
            >
              <span class="label">{each.label}</span>
              <span class={each.value.length > 9 ? "value long" : "value"} data-metric={each.key}>
                {each.value}
              </span>
              <span class="than">
                {change && each.now !== each.before && (
                  <span class={grew ? "up" : "down"}>{change}</span>
                )}
                {each.before !== undefined && (
                  <span>
                    {change === null ? "was " : "from "}
                    {was}
                    <span class="unseen"> in the {than}</span>
                  </span>
                )}
              </span>
              <Sparkline values={view.range.open ? each.periods.slice(0, -1) : each.periods} />
            </button>
          );
        })}
      </section>
      <Card
        title={metric.label}
        tools={
          known.length > 1 && (
            <select
              aria-label="Currency"
              value={currency}
              onChange={(event) => setParameters({ currency: event.currentTarget.value })}
            >
              {known.map((each) => (
                <option key={each} value={each}>
                  {each}
                </option>
              ))}
            </select>
          )
        }
      >
        <Chart
          label={metric.label}
          times={now.times}
          interval={view.range.interval}
          zone={view.zone}
          lines={lines}
          format={metric.format}
          axis={metric.axis}
          open={view.range.open}
        />
        <p class="soft small">
          {now.asOf && <>Holds what was stored before {dateTime(now.asOf, view.zone)}. </>}
          {before?.times[0] && (
            <>
              Compared with {period(before.times[0], "DAY", view.zone)} to{" "}
              {period(before.times[before.times.length - 1] ?? before.times[0], "DAY", view.zone)}.
            </>
          )}
        </p>
      </Card>
    </div>
  );
}

function TopList(props: {
  view: PageProps["view"];
  measure: (typeof LISTS)[number][0];
  title: string;
}): JSX.Element {
  const { view, measure, title } = props;
  const loaded = useData(`${view.text} ${measure}`, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/measures",
      { store_uid: view.store },
      { ...asked(view.range, view), measure },
      signal,
    ),
  );
  // What a click filters by: the funnel of those whose first event has it.
  const breakdown = {
    Pages: "page",
    Referrers: "referrer",
    Campaigns: "campaign",
    Devices: "device",
    Countries: "country",
  }[title];
  return (
    <Card title={title} tools={<span class="soft small">Views</span>}>
      <Show of={loaded}>
        {(data) => (
          <Bars
            rows={data.series.slice(0, 8).map((each) => ({
              name: each.name,
              value: Number(each.total_count),
              title: `${each.name}: show the funnel of these`,
              href: linkTo("funnel", { filter: `${breakdown}=${each.name}` }),
            }))}
            format={count}
          />
        )}
      </Show>
    </Card>
  );
}

function TopProducts({ view }: { view: PageProps["view"] }): JSX.Element {
  const loaded = useData(`${view.text} products`, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/products",
      { store_uid: view.store },
      { ...askedWhole(view.range), time_zone: view.zone, limit: 8 },
      signal,
    ),
  );
  return (
    <Card title="Products" tools={<span class="soft small">Orders</span>}>
      <Show of={loaded}>
        {(data) => (
          <Bars
            rows={data.products.map((each) => ({
              name: each.name || each.product_id,
              value: Number(each.order_count),
              href: linkTo("products"),
            }))}
            format={count}
          />
        )}
      </Show>
    </Card>
  );
}
