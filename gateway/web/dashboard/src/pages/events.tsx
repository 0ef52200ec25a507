/** Which events there are, how often they come, and what they come with. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { Sparkline } from "../chart";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, count, dateTime, percent } from "../format";
import type { PageProps } from "../pages";
import { asked, askedWhole, numbers } from "../reports";
import { Card, Empty, HowToSend, Show } from "../ui";
import { follow, linkTo } from "../url";

type Described = Schemas["query.EventDescription"];

/** Whether an event that used to come has stopped: four times its usual pause have passed. */
export function isSilent(event: Described, end: number): boolean {
  const [first, last] = [Date.parse(event.first_time ?? ""), Date.parse(event.last_time ?? "")];
  const times = Number(event.event_count);
  if (times < 20) return false;
  const pause = (last - first) / (times - 1);
  return end - last > Math.max(4 * pause, 6 * 3_600_000);
}

export function Events({ view }: PageProps): JSX.Element {
  const store = { store_uid: view.store };
  const loaded = useData(view.text, async (signal) => {
    const [catalogue, counts] = await Promise.all([
      get("/v1/stores/{store_uid}/event-catalogue", store, askedWhole(view.range), signal),
      get("/v1/stores/{store_uid}/reports/event-counts", store, asked(view.range, view), signal),
    ]);
    return { events: catalogue.events, series: counts.series };
  });
  useEffect(() => {
    setExporter(() => ({
      name: "events",
      rows: [
        ["Type", "Event", "Count", "First", "Last", "Property", "Events with it", "Types"],
        ...(loaded.data?.events ?? []).flatMap((event) => {
          const own = [event.type, event.name, Number(event.event_count), event.first_time ?? "", event.last_time ?? ""];
          return event.properties.length
            ? event.properties.map((each) => [...own, each.name, Number(each.event_count), each.types.join(" ")])
            : [[...own, "", "", ""]];
        }),
      ],
    }));
    return () => setExporter(null);
  });
  return (
    <Card flush title="Events in this range" tools={<span class="soft small">Open one to see its properties</span>}>
      <Show of={loaded}>
        {({ events, series }) =>
          events.length === 0 ? (
            <Empty title="No events in this range">
              <HowToSend />
            </Empty>
          ) : (
            <ul class="stream catalogue">
              {events.map((event) => {
                const line = series.find((each) => each.name === event.name && each.type === event.type);
                const mixed = event.properties.filter((each) => each.types.filter((type) => type !== "null").length > 1);
                return (
                  <li key={`${event.type} ${event.name}`}>
                    <details>
                      <summary>
                        <span class="badge">{event.type}</span>
                        <span class="num">{count(event.event_count)}</span>
                        <span class="name">{event.name}</span>
                        <span class="catalogue-spark hide-narrow">
                          <Sparkline values={numbers(line?.counts ?? [])} />
                        </span>
                        <span class="row">
                          {isSilent(event, view.range.end.getTime()) && (
                            <span class="badge warn">silent since {ago(event.last_time)}</span>
                          )}
                          {mixed.length > 0 && <span class="badge bad">mixed types</span>}
                        </span>
                      </summary>
                      <div class="inside">
                        <p class="soft small">
                          First {dateTime(event.first_time, view.zone)}, last {dateTime(event.last_time, view.zone)}.{" "}
                          <a href={linkTo("funnel", { step: [event.name, "Order Completed"] })} onClick={follow}>
                            Begin a funnel with it
                          </a>
                        </p>
                        {event.properties.length === 0 ? (
                          <p class="soft">It comes without properties.</p>
                        ) : (
                          <div class="scroll" tabIndex={0} role="group" aria-label={`Properties of ${event.name}`}>
                            <table>
                              <thead>
                                <tr>
                                  <th scope="col">Property</th>
                                  <th scope="col">Types</th>
                                  <th scope="col" class="num">In events</th>
                                </tr>
                              </thead>
                              <tbody>
                                {event.properties.map((each) => (
                                  <tr key={each.name}>
                                    <td><code>{each.name}</code></td>
                                    <td>
                                      {each.types.map((type) => (
                                        <span key={type} class={mixed.includes(each) ? "badge bad" : "badge"}>{type}</span>
                                      ))}
                                    </td>
                                    <td class="num">{percent(Number(each.event_count) / Number(event.event_count))}</td>
                                  </tr>
                                ))}
                              </tbody>
                            </table>
                          </div>
                        )}
                      </div>
                    </details>
                  </li>
                );
              })}
            </ul>
          )
        }
      </Show>
    </Card>
  );
}
