/** All that one person did, under all ids that are theirs. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { EventRow, type Recorded } from "../event_row";
import type { PageProps } from "../pages";
import { Card, Empty, Failure, Segments, Show } from "../ui";
import { setParameters } from "../url";

const KINDS = [
  ["user", "User id"],
  ["anonymous", "Anonymous id"],
] as const;

export function Visitor({ view }: PageProps): JSX.Element {
  const user = view.one("user");
  const anonymous = user ? "" : view.one("anonymous");
  const given = user || anonymous;
  const [kind, setKind] = useState<"user" | "anonymous">(anonymous ? "anonymous" : "user");
  const [text, setText] = useState(given);
  const [more, setMore] = useState<{ events: Recorded[]; token: string }>();
  const [failure, setFailure] = useState<ApiError>();
  useEffect(() => {
    setText(given);
    setKind(anonymous ? "anonymous" : "user");
    setMore(undefined);
  }, [user, anonymous]);
  const page = (token: string, signal?: AbortSignal) =>
    get(
      "/v1/stores/{store_uid}/visitor-events",
      { store_uid: view.store },
      { user_id: user, anonymous_id: anonymous, page_size: 100, page_token: token },
      signal,
    );
  const loaded = useData(given ? `${view.store} ${user} ${anonymous}` : null, (signal) => page("", signal));
  const events = [...(loaded.data?.events ?? []), ...(more?.events ?? [])];
  const token = more ? more.token : (loaded.data?.next_page_token ?? "");
  useEffect(() => {
    setExporter(() => ({
      name: "visitor",
      rows: [
        ["Time", "Type", "Event", "User", "Anonymous id", "Payload"],
        ...events.map((each) => [
          each.occur_time ?? "", each.type, each.name, each.user_id, each.anonymous_id,
          JSON.stringify(each.payload),
        ]),
      ],
    }));
    return () => setExporter(null);
  });
  const dayOf = (event: Recorded): string =>
    new Intl.DateTimeFormat(undefined, { timeZone: view.zone, dateStyle: "full" }).format(
      new Date(event.occur_time ?? 0),
    );
  const days = new Map<string, Recorded[]>();
  for (const event of events) days.set(dayOf(event), [...(days.get(dayOf(event)) ?? []), event]);
  return (
    <div class="stack">
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          setParameters({ user: "", anonymous: "", [kind]: text.trim() });
        }}
      >
        <Segments label="Which id" options={KINDS} value={kind} onChange={setKind} />
        <input
          type="search"
          aria-label="The visitor's id"
          placeholder={kind === "user" ? "The shop's id, such as ada" : "The browser's id"}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button type="submit" class="primary" disabled={!text.trim()}>
          Look up
        </button>
      </form>
      {!given ? (
        <Card>
          <Empty title="Whose timeline?">
            <p>Look up an id, or follow a visitor's link in the live view.</p>
          </Empty>
        </Card>
      ) : (
        <Show of={loaded}>
          {() =>
            events.length === 0 ? (
              <Card>
                <Empty title="Nothing is known of this visitor">
                  <p>
                    Ids are compared letter by letter. Was it{" "}
                    {kind === "user" ? "an anonymous id" : "a user id"}?
                  </p>
                </Empty>
              </Card>
            ) : (
              <div class="stack">
                {[...days].map(([day, inDay]) => (
                  <Card key={day} flush title={day} tools={<span class="soft small">{inDay.length} events</span>}>
                    <ol class="stream">
                      {inDay.map((each) => (
                        <EventRow key={each.uid} event={each} zone={view.zone} />
                      ))}
                    </ol>
                  </Card>
                ))}
                {failure && <Failure error={failure} />}
                {token && (
                  <div>
                    <button
                      type="button"
                      onClick={() =>
                        void page(token).then(
                          (answer) =>
                            setMore({
                              events: [...(more?.events ?? []), ...answer.events],
                              token: answer.next_page_token,
                            }),
                          (error: ApiError) => setFailure(error),
                        )
                      }
                    >
                      Earlier events
                    </button>
                  </div>
                )}
              </div>
            )
          }
        </Show>
      )}
    </div>
  );
}
