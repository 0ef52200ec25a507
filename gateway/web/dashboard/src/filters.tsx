/** What events must have to be looked at; stands in the URL as `filter`. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";

import { setParameters } from "./url";

const KNOWN = ["device", "country", "campaign", "referrer", "page", "properties."];

export function Filters({ filters }: { filters: string[] }): JSX.Element {
  const [by, setBy] = useState("device");
  const [property, setProperty] = useState("");
  const [value, setValue] = useState("");
  return (
    <form
      class="row"
      aria-label="Filters"
      onSubmit={(event) => {
        event.preventDefault();
        const name = by === "properties." ? `properties.${property.trim()}` : by;
        if (value.trim()) setParameters({ filter: [...filters, `${name}=${value.trim()}`] });
        setValue("");
      }}
    >
      {filters.map((filter) => (
        <button
          key={filter}
          type="button"
          aria-label={`${filter}, remove`}
          title="Remove this filter"
          onClick={() => setParameters({ filter: filters.filter((each) => each !== filter) })}
        >
          {filter} <span aria-hidden="true">×</span>
        </button>
      ))}
      <select aria-label="Filter by" value={by} onChange={(event) => setBy(event.currentTarget.value)}>
        {KNOWN.map((each) => (
          <option key={each} value={each}>
            {each === "properties." ? "a property" : each}
          </option>
        ))}
      </select>
      {by === "properties." && (
        <input
          aria-label="Property"
          placeholder="color"
          value={property}
          onInput={(event) => setProperty(event.currentTarget.value)}
        />
      )}
      <input
        aria-label="Value"
        placeholder="is exactly…"
        value={value}
        onInput={(event) => setValue(event.currentTarget.value)}
      />
      <button type="submit" disabled={!value.trim() || filters.length >= 10}>
        Add filter
      </button>
    </form>
  );
}
