/** Which events there are, how often they come, and what they come with. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { Sparkline } from "../chart";
import { setExporter } from "../csv";
import { useData } from "../data";
import { ago, count, dateTime, percent, spoken } from "../format";
import type { PageProps } from "../pages";
import { asked, askedWhole, numbers } from "../reports";
import { Card, Empty, HowToSend, Show } from "../ui";
import { follow, linkTo } from "../url";

type Property = Schemas["query.PropertyDescription"];

/** What a property's drift is called; empty if it has not changed. */
function driftOf(property: Property): string {
  const drift = property.drift;
  return drift === "DRIFT_UNSPECIFIED" ? "" : spoken(drift, "DRIFT_").toLowerCase();
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
        ["Type", "Event", "Count", "First", "Last", "Silent since", "Property", "Events with it", "Types", "Change"],
        ...(loaded.data?.events ?? []).flatMap((event) => {
          const own = [event.type, event.name, Number(event.event_count), event.first_time ?? "", event.last_time ?? "", event.silent_since ?? ""];
          return event.properties.length
            ? event.properties.map((each) => [...own, each.name, Number(each.event_count), each.types.join(" "), driftOf(each)])
            : [[...own, "", "", "", ""]];
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
                const drifted = event.properties.filter((each) => driftOf(each));
                const was = Number(event.previous_event_count);
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
                          {event.silent_since && (
                            <span class="badge bad" title={dateTime(event.silent_since, view.zone)}>
                              silent, last {ago(event.silent_since)}
                            </span>
                          )}
                          {drifted.length > 0 && <span class="badge warn">changed</span>}
                          {mixed.length > 0 && <span class="badge bad">mixed types</span>}
                        </span>
                      </summary>
                      <div class="inside">
                        <p class="soft small">
                          First {dateTime(event.first_time, view.zone)}, last {dateTime(event.last_time, view.zone)};{" "}
                          {count(was)} in the period before.{" "}
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
                                  <th scope="col">Change</th>
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
                                    <td>
                                      {driftOf(each) && (
                                        <span class="badge warn">
                                          {driftOf(each)}
                                          {each.previous_types.length > 0 && `, was ${each.previous_types.join(" or ")}`}
                                        </span>
                                      )}
                                    </td>
                                    <td class="num">
                                      {Number(event.event_count) > 0 &&
                                        percent(Number(each.event_count) / Number(event.event_count))}
                                    </td>
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
