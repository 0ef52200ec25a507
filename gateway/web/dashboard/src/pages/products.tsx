/** How products fare, from being seen to being bought. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";

import { get, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData } from "../data";
import { count, money, percent } from "../format";
import type { PageProps } from "../pages";
import { askedWhole } from "../reports";
import { Card, Empty, HowToSend, Segments, Show, Table, rowsOf, type Column } from "../ui";
import { setParameters } from "../url";

type Product = Schemas["query.ProductFigures"];

const RANKINGS = [
  ["PRODUCT_RANKING_ORDERS", "Orders"],
  ["PRODUCT_RANKING_VIEWS", "Views"],
  ["PRODUCT_RANKING_ADDITIONS", "Carts"],
] as const;

const COLUMNS: Column<Product>[] = [
  {
    name: "Product",
    cell: (row) => (
      <>
        {row.name || row.product_id}
        {row.name && <div class="soft small">{row.product_id}</div>}
      </>
    ),
    csv: (row) => row.name || row.product_id,
  },
  { name: "Views", num: true, cell: (row) => count(row.view_count), csv: (row) => Number(row.view_count) },
  { name: "To cart", num: true, cell: (row) => count(row.addition_count), csv: (row) => Number(row.addition_count) },
  {
    name: "Views to cart",
    num: true,
    hideNarrow: true,
    cell: (row) => (row.view_to_cart_rate === undefined ? "–" : percent(row.view_to_cart_rate)),
    csv: (row) => row.view_to_cart_rate ?? "",
  },
  { name: "Orders", num: true, cell: (row) => count(row.order_count), csv: (row) => Number(row.order_count) },
  {
    name: "Cart to order",
    num: true,
    hideNarrow: true,
    cell: (row) => (row.cart_to_order_rate === undefined ? "–" : percent(row.cart_to_order_rate)),
    csv: (row) => row.cart_to_order_rate ?? "",
  },
  { name: "Pieces", num: true, hideNarrow: true, cell: (row) => count(row.quantity), csv: (row) => Number(row.quantity) },
  {
    name: "Revenue",
    num: true,
    cell: (row) =>
      row.revenue.length
        ? row.revenue.map((each) => (
            <div key={each.currency}>{money(each.amount, each.currency)}</div>
          ))
        : "–",
    csv: (row) => row.revenue.map((each) => `${each.amount} ${each.currency}`).join("; "),
  },
];

export function Products({ view }: PageProps): JSX.Element {
  const ranking =
    RANKINGS.find(([value]) => value === view.one("ranking"))?.[0] ?? "PRODUCT_RANKING_ORDERS";
  const loaded = useData(view.text, (signal) =>
    get(
      "/v1/stores/{store_uid}/reports/products",
      { store_uid: view.store },
      { ...askedWhole(view.range), time_zone: view.zone, ranking, limit: 100 },
      signal,
    ),
  );
  useEffect(() => {
    setExporter(() => ({ name: "products", rows: rowsOf(COLUMNS, loaded.data?.products ?? []) }));
    return () => setExporter(null);
  });
  return (
    <Card
      flush
      title="The foremost by"
      tools={
        <Segments
          label="Ranked by"
          options={RANKINGS}
          value={ranking}
          onChange={(value) => setParameters({ ranking: value }, { replace: true })}
        />
      }
    >
      <Show of={loaded}>
        {(data) =>
          data.products.length ? (
            <Table label="Products" columns={COLUMNS} rows={data.products} keyOf={(row) => row.product_id} />
          ) : (
            <Empty title="No products in this range">
              <HowToSend />
            </Empty>
          )
        }
      </Show>
    </Card>
  );
}
