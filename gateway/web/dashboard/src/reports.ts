/** What all reports ask with, and how their figures are compared. */

import type { Range } from "./time";
import type { View } from "./url";

export interface Asked {
  start_time: string;
  end_time: string;
  interval: `INTERVAL_${Range["interval"]}`;
  time_zone: string;
}

export function asked(range: Range, view: View): Asked {
  return {
    start_time: range.start.toISOString(),
    end_time: range.end.toISOString(),
    interval: `INTERVAL_${range.interval}`,
    time_zone: view.zone,
  };
}

/** The same without periods, for reports that have none. */
export function askedWhole(range: Range): { start_time: string; end_time: string } {
  return { start_time: range.start.toISOString(), end_time: range.end.toISOString() };
}

/** For the range and, if there is one, for what it is compared with. */
export async function both<T>(
  view: View,
  load: (range: Range) => Promise<T>,
): Promise<{ now: T; before: T | undefined }> {
  const [now, before] = await Promise.all([
    load(view.range),
    view.compared ? load(view.compared) : undefined,
  ]);
  return { now, before };
}

export const numbers = (values: string[]): number[] => values.map(Number);
