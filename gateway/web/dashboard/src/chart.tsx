/** Lines over time, and the small ones in tiles. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { saveFile } from "./csv";
import { period } from "./format";

export interface Line {
  name: string;
  values: number[];
  /** Dashed, for a period before. */
  faint?: boolean;
  /** A custom property of the style sheet. */
  color?: string;
}

export function Sparkline({ values }: { values: number[] }): JSX.Element | null {
  if (values.length < 2) return <svg class="spark" aria-hidden="true" />;
  const [low, high] = [Math.min(0, ...values), Math.max(...values, 1e-9)];
  const x = (index: number): number => (index / (values.length - 1)) * 100;
  const y = (value: number): number => 29 - ((value - low) / (high - low)) * 27;
  const points = values.map((value, index) => `${x(index).toFixed(2)},${y(value).toFixed(2)}`);
  return (
    <svg class="spark" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
      <polygon class="area" points={`0,30 ${points.join(" ")} 100,30`} />
      <polyline class="line" points={points.join(" ")} />
    </svg>
  );
}

function style(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function Chart(props: {
  label: string;
  times: string[];
  interval: string;
  zone: string;
  lines: Line[];
  format: (value: number) => string;
  axis?: (value: number) => string;
  height?: number;
  /** Whether the last period is not over yet: then the way to it is dotted. */
  open?: boolean;
}): JSX.Element {
  const { times, interval, zone, lines, format, open = false } = props;
  const place = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [asTable, setAsTable] = useState(false);
  const theme = document.documentElement.dataset.theme ?? "";
  const key = JSON.stringify([times, lines, interval, zone, theme, asTable, open]);

  useEffect(() => {
    const element = place.current;
    if (!element || asTable || times.length === 0) return undefined;
    const height = props.height ?? 280;
    const many = times.length > 40;
    const tell = (index: number | null | undefined): void => {
      const box = tip.current;
      const chart = plot.current;
      if (!box || !chart) return;
      const at = index === null || index === undefined ? undefined : times[index];
      box.hidden = at === undefined;
      if (at === undefined || index === null || index === undefined) return;
      box.replaceChildren(
        document.createTextNode(period(at, interval, zone)),
        ...lines.map((line) => {
          const row = document.createElement("div");
          const value = document.createElement("b");
          value.textContent = format(line.values[index] ?? 0);
          row.append(value, ` ${line.name}`);
          return row;
        }),
      );
      const left = chart.valToPos(index, "x") + (chart.over.offsetLeft || 0);
      const room = element.clientWidth - box.offsetWidth - 4;
      box.style.left = `${Math.max(4, Math.min(room, left + 12))}px`;
      box.style.top = "14px";
    };
    // What is whole, and the way from there to a period that is not over.
    const drawn = lines.flatMap((line) => {
      const ends = open && !line.faint && times.length > 1;
      const whole = { line, dotted: false, ends };
      return ends ? [whole, { line, dotted: true, ends }] : [whole];
    });
    const options: uPlot.Options = {
      width: element.clientWidth,
      height,
      legend: { show: false },
      padding: [12, 40, 0, 8],
      cursor: {
        points: { size: 7, width: 2 },
        drag: { x: false, y: false },
        y: false,
      },
      scales: {
        x: { time: false, range: [-0.02 * times.length, times.length - 1 + 0.02 * times.length] },
        y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        {
          stroke: style("--soft"),
          grid: { show: false },
          ticks: { show: false },
          size: 32,
          gap: 10,
          font: `12px ${getComputedStyle(document.body).fontFamily}`,
          splits: () => times.map((_, index) => index),
          filter: (_, splits) => {
            const room = Math.max(2, Math.floor(element.clientWidth / 92));
            const step = Math.max(1, Math.ceil(times.length / room));
            return splits.map((index) => (index % step === 0 ? index : null));
          },
          values: (_, splits) =>
            splits.map((index) =>
              index === null ? "" : period(times[index] ?? "", interval, zone),
            ),
        },
        {
          stroke: style("--soft"),
          grid: { stroke: style("--line"), width: 1 },
          ticks: { show: false },
          size: 62,
          font: `12px ${getComputedStyle(document.body).fontFamily}`,
          values: (_, splits) => splits.map((value) => (props.axis ?? format)(value)),
        },
      ],
      series: [
        {},
        ...drawn.map(({ line, dotted }): uPlot.Series => {
          const color = style(line.color ?? (line.faint ? "--before" : "--accent"));
          if (dotted) {
            return {
              stroke: color,
              width: 2,
              dash: [2, 4],
              points: { show: true, size: 6, fill: style("--card") },
            };
          }
          return {
            label: line.name,
            stroke: color,
            width: line.faint ? 1.5 : 2.2,
            points: { show: !line.faint && !many, size: 6, fill: style("--card") },
            ...(line.faint ? { dash: [5, 5] } : {}),
            ...(!line.faint && lines.filter((each) => !each.faint).length === 1
              ? { fill: `${color}1c` }
              : {}),
          };
        }),
      ],
      hooks: { setCursor: [(chart) => tell(chart.cursor.idx)] },
    };
    const data: uPlot.AlignedData = [
      times.map((_, index) => index),
      ...drawn.map(({ line, dotted, ends }) =>
        times.map((_, index) => {
          const isPart = dotted ? index >= times.length - 2 : index < times.length - (ends ? 1 : 0);
          return isPart ? (line.values[index] ?? null) : null;
        }),
      ),
    ];
    const chart = new uPlot(options, data, element);
    plot.current = chart;
    const observer = new ResizeObserver(() => {
      chart.setSize({ width: element.clientWidth, height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [key]);

  const save = (): void => {
    const canvas = plot.current?.ctx.canvas;
    if (!canvas) return;
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d");
    if (!context) return;
    context.fillStyle = style("--card");
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(canvas, 0, 0);
    copy.toBlob((blob) => blob && saveFile(`${props.label}.png`, blob));
  };

  return (
    <figure class="chart">
      <div class="row apart">
        <div class="legend">
          {lines.map((line) => (
            <span key={line.name} class={line.faint ? "then" : (line.color?.slice(2) ?? "")}>
              {line.name}
            </span>
          ))}
        </div>
        <div class="row">
          <button type="button" class="plain small" onClick={() => setAsTable(!asTable)}>
            {asTable ? "Chart" : "Table"}
          </button>
          {!asTable && (
            <button type="button" class="plain small" onClick={save}>
              PNG
            </button>
          )}
        </div>
      </div>
      {asTable ? (
        <div class="scroll" tabIndex={0} role="group" aria-label={props.label}>
          <table>
            <thead>
              <tr>
                <th scope="col">Period</th>
                {lines.map((line) => (
                  <th key={line.name} scope="col" class="num">
                    {line.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {times.map((time, index) => (
                <tr key={time}>
                  <td>{period(time, interval, zone)}</td>
                  {lines.map((line) => (
                    <td key={line.name} class="num">
                      {format(line.values[index] ?? 0)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <div ref={place} role="img" aria-label={`${props.label}, over time. “Table” lists it.`}>
          <div class="tip" ref={tip} hidden aria-hidden="true" />
        </div>
      )}
    </figure>
  );
}
