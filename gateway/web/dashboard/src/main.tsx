import { render } from "preact";

import { App } from "./shell";
import "./theme";
import "./style.css";

const place = document.getElementById("app");
if (place) render(<App />, place);
