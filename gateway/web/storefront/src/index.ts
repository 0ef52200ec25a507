/** The package: for shops that bundle the script with their own. */

export * from "./tracker";
export { watchElements, watchPages } from "./page";
export { follow as followDataLayer, translate as translateGa4 } from "./ga4";
