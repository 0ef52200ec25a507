/** What the shop sells, and how it looks. */

import { svg } from "./dom";
// Also what the made-up history is about.
import goods from "./goods.json";

export interface Good {
  id: string;
  name: string;
  category: "Tea" | "Teaware";
  /** In cents. */
  price: number;
  kind: "tin" | "pot" | "kettle" | "cups" | "whisk" | "bowl";
  colour: string;
  text: string;
}

export const GOODS = goods as Good[];

export const find = (id: string): Good | undefined => GOODS.find((each) => each.id === id);

/** As texts such as `19.90`, which stay exact wherever they are read. */
export const amount = (cents: number): string => (cents / 100).toFixed(2);

export const euros = (cents: number): string =>
  `${cents < 0 ? "−" : ""}€${amount(Math.abs(cents))}`;

/** A picture of it. */
export function pictureOf({ kind, colour }: Good): SVGElement {
  const dark = { fill: colour, filter: "brightness(0.8)" };
  const line = { fill: "none", stroke: colour, "stroke-width": "7", "stroke-linecap": "round" };
  const parts: Record<Good["kind"], SVGElement[]> = {
    tin: [
      svg("rect", { x: "62", y: "58", width: "76", height: "92", rx: "7", fill: colour }),
      svg("rect", { x: "58", y: "44", width: "84", height: "24", rx: "6", ...dark }),
      svg("rect", { x: "74", y: "84", width: "52", height: "42", rx: "3", fill: "#fbf8f1" }),
      svg("path", { d: "M100 118c-16-8-14-22 0-28 14 6 16 20 0 28zm0 0v-20", fill: colour, stroke: "#fbf8f1", "stroke-width": "1.5" }),
    ],
    pot: [
      svg("path", { d: "M138 92c26-10 34 30-4 34", ...line }),
      svg("path", { d: "M66 112C46 104 50 84 34 80", ...line, "stroke-width": "11" }),
      svg("ellipse", { cx: "100", cy: "112", rx: "46", ry: "37", fill: colour }),
      svg("ellipse", { cx: "100", cy: "79", rx: "26", ry: "7", ...dark }),
      svg("circle", { cx: "100", cy: "69", r: "7", fill: colour }),
    ],
    kettle: [
      svg("path", { d: "M60 84C60 34 140 34 140 84", ...line }),
      svg("path", { d: "M62 116 34 92", ...line, "stroke-width": "12" }),
      svg("path", { d: "M56 98c0-14 88-14 88 0 8 40-8 50-20 50H76c-12 0-28-10-20-50z", fill: colour }),
      svg("ellipse", { cx: "100", cy: "90", rx: "27", ry: "6", ...dark }),
      svg("circle", { cx: "100", cy: "82", r: "5", fill: colour }),
    ],
    cups: [
      svg("path", { d: "M40 92h54l-6 44a8 8 0 0 1-8 7H54a8 8 0 0 1-8-7z", fill: colour }),
      svg("ellipse", { cx: "67", cy: "92", rx: "27", ry: "7", ...dark }),
      svg("path", { d: "M106 92h54l-6 44a8 8 0 0 1-8 7h-26a8 8 0 0 1-8-7z", fill: colour }),
      svg("ellipse", { cx: "133", cy: "92", rx: "27", ry: "7", ...dark }),
      svg("path", { d: "M62 76c-8-10 8-14 0-24M128 76c-8-10 8-14 0-24", ...line, "stroke-width": "3", opacity: "0.5" }),
    ],
    whisk: [
      svg("rect", { x: "86", y: "36", width: "28", height: "54", rx: "8", fill: colour }),
      svg("rect", { x: "84", y: "82", width: "32", height: "9", rx: "3", ...dark }),
      ...[-34, -22, -11, 0, 11, 22, 34].map((bend) =>
        svg("path", { d: `M${100 + bend / 3} 90Q${100 + bend * 1.4} 118 ${100 + bend} 152`, ...line, "stroke-width": "4" }),
      ),
    ],
    bowl: [
      svg("path", { d: "M46 84h108c0 42-26 60-54 60s-54-18-54-60z", fill: colour }),
      svg("rect", { x: "80", y: "140", width: "40", height: "10", rx: "3", ...dark }),
      svg("ellipse", { cx: "100", cy: "84", rx: "54", ry: "12", ...dark }),
      svg("ellipse", { cx: "100", cy: "86", rx: "43", ry: "8", fill: "#a8bf6a" }),
    ],
  };
  return svg(
    "svg",
    { viewBox: "0 0 200 190", "aria-hidden": "true", class: "picture" },
    svg("ellipse", { cx: "100", cy: "152", rx: "58", ry: "7", fill: "#1f2a24", opacity: "0.1" }),
    ...parts[kind],
  );
}
