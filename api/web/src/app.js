/** The page: makes the parts, joins them through the store, and draws a panel when what it shows has changed. */

import { alertText, askPermission, DEFAULT_ALERT, due, notify, permissionText } from "./alerts.js";
import { Api } from "./api.js";
import { renderAssumptions } from "./assumptions.js";
import { announcer, renderBadge, worthSaying } from "./badge.js";
import { now } from "./clock.js";
import { commands } from "./commands.js";
import { showing, wireControls, wireLayersPlace } from "./controls.js";
import { Decoder } from "./decoder.js";
import { byId, inputOf, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { price, stamp } from "./format.js";
import { wireHelp } from "./help.js";
import { storedKey, wireKeyprompt } from "./keyprompt.js";
import { wireKeys } from "./keys.js";
import { Look, themeOf } from "./look.js";
import { notice } from "./notices.js";
import { showPanel, wireTabs } from "./panel.js";
import { Picture } from "./picture.js";
import { renderReadout, spoken } from "./readout.js";
import { wireExports } from "./save.js";
import { Session } from "./session.js";
import { createStore } from "./store.js";
import { renderTape } from "./tape.js";
import { atMost } from "./timing.js";
import { stateOfUrl, urlOfState } from "./url.js";
import { boundBits, renderVenues, TRANSPORTS } from "./venues.js";
import { ZoneTable } from "./zones.js";

/** Tables follow the price at most so often; the panel of venues as often as the server beats. */
const TABLE_MS = 1000;
const VENUES_MS = 5000;
const ADDRESS_MS = 200;
const SPOKEN_MS = 700;

/** @type {{symbols: string[], version: string, keys: boolean}} */
const server = JSON.parse(/** @type {HTMLMetaElement} */ (document.querySelector("meta[name=mpengine]")).content);
const store = createStore({ symbol: server.symbols[0] ?? null, ...stateOfUrl(location.search, server.symbols) });
const api = new Api({ key: storedKey() });
const worker = new Worker(new URL(`./decode.worker.js${new URL(import.meta.url).search}`, import.meta.url), { type: "module" });
const decoder = new Decoder(worker);
const feed = new Feed({ api, decoder });
const picture = new Picture(byId("chart"), { theme: themeOf(store.get()), now });
const session = new Session({ api, feed, picture, store, decoder });
const togglePause = () => (store.get().paused ? session.resume() : session.pause());

wireControls(store, server.symbols);
wireLayersPlace();
const look = new Look(store, picture);
wireExports(store.get, picture);
wireChart();
wirePanels();
wireBadge();
wireAlerts();
wireKey();
wireAddress();
session.open();

/** Cross-hair, way back to the newest column, keys. */
function wireChart() {
  /** @type {import("./types.js").Readout|null} */
  let readout = null;
  let step = 0;
  let byKeys = false;
  const say = atMost(SPOKEN_MS, (/** @type {string} */ text) => setText(byId("cursor-live"), text));
  const draw = () => {
    const state = store.get();
    renderReadout(byId("readout-body"), { readout, zones: state.zonesRows, mark: state.mark, step, bounds: boundBits(state) });
  };
  const drawCalmly = atMost(TABLE_MS, draw);
  let asked = false;
  const drawSoon = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
  picture.addEventListener("readout", (event) => {
    readout = /** @type {CustomEvent} */ (event).detail;
    drawSoon();
    if (byKeys && readout) say(spoken(readout));
  });
  picture.addEventListener("view", (event) => {
    byId("newest").hidden = /** @type {CustomEvent} */ (event).detail.atNewest;
    look.follow();
  });
  session.addEventListener("snapshot", (event) => {
    step = /** @type {CustomEvent} */ (event).detail.step;
    look.forget();
  });
  showing(store, ["mark", "zonesRows"], () => drawCalmly());
  setInterval(() => look.follow(), VENUES_MS);
  byId("newest").addEventListener("click", () => picture.toNewest());
  byId("chart").addEventListener("pointermove", () => {
    byKeys = false;
  });

  const help = wireHelp();
  const close = () => {
    // What lies on top closes first, by itself.
    if (document.querySelector(":popover-open, dialog[open]")) return;
    picture.clearCrosshair();
    for (const node of document.querySelectorAll("#notices > *")) node.remove();
  };
  const run = commands({ store, picture, symbols: server.symbols, togglePause, help: help.open, close });
  wireKeys((action) => {
    byKeys = "cursor" in action;
    run(action);
  }, help.single);
}

/** Tables and texts beside the chart. */
function wirePanels() {
  const zones = new ZoneTable(byId("panel-zones"), (at) => picture.jumpToPrice(at));
  const drawZones = atMost(TABLE_MS, () => {
    const { zonesRows, mark, symbol, tiers, minUsd } = store.get();
    zones.render({ zones: zonesRows, mark, symbol, filtered: tiers !== null || minUsd > 0 });
  });
  showing(store, ["zonesRows", "mark", "symbol", "tiers", "minUsd"], () => drawZones());
  const drawTape = atMost(TABLE_MS, () => renderTape(byId("tape-body"), store.get().events, store.get().venues));
  showing(store, ["events", "venues", "symbol"], () => drawTape());

  const drawVenues = () => renderVenues(byId("panel-venues"), store.get());
  const drawVenuesCalmly = atMost(VENUES_MS, drawVenues);
  const drawAssumptions = () => {
    const { provenance, status } = store.get();
    renderAssumptions(byId("panel-assumptions"), /** @type {import("./types.js").ProvenanceOf|null} */ (provenance), status.version ?? server.version);
  };
  const isOpen = (/** @type {string} */ panel) => store.get().panel === panel;
  wireTabs((panel) => store.set({ panel }));
  // A place that is hidden cannot be gone to.
  document.querySelector(".skip")?.addEventListener("click", () => store.set({ panel: null }));
  showing(store, ["panel"], ({ panel }) => {
    showPanel(panel);
    if (panel === "venues") {
      session.refreshHealth();
      drawVenues();
    } else if (panel === "assumptions") drawAssumptions();
  });
  store.subscribe(["venuesHealth", "ages", "status", "transport", "provenance"], () => isOpen("venues") && drawVenuesCalmly());
  store.subscribe(["provenance"], () => isOpen("assumptions") && drawAssumptions());
  showing(store, ["provenance", "status", "transport"], drawOrigin);
}

/** @param {import("./store.js").State} state */
function drawOrigin({ provenance, status, transport }) {
  setText(byId("origin-model"), provenance ? `model ${provenance.model}` : "");
  setText(byId("origin-since"), status.dataSinceMs === null ? "" : `data since ${stamp(status.dataSinceMs)} UTC`);
  setText(byId("origin-link"), TRANSPORTS[transport]);
}

/** Badge, banners, price and what a screen reader is told of them. */
function wireBadge() {
  const say = announcer(byId("live"));
  let said = "";
  showing(store, ["badge", "reason", "alsoStale", "staleCodes", "buffered", "ages", "gap", "paused", "map", "depth"], (state) => {
    renderBadge(state);
    const news = worthSaying(state);
    if (news === said) return;
    said = news;
    say([`${state.badge}. ${state.reason}`, state.gap?.text ?? ""].join(" ").trim());
  });
  showing(store, ["mark", "symbol", "badge"], ({ mark, symbol, badge }) => {
    setText(byId("mark"), price(mark));
    document.title = `${badge === "LIVE" ? "" : `${badge} `}${symbol ?? ""} ${price(mark)} · mpengine`;
  });
  byId("pause").addEventListener("click", togglePause);
}

/** Price near a large zone. */
function wireAlerts() {
  /** @type {Map<string, number>} */
  const told = new Map();
  const on = inputOf("alert-on");
  on.addEventListener("change", async () => {
    store.set(on.checked ? DEFAULT_ALERT : { alertPct: null, alertUsd: null });
    setText(byId("alert-note"), on.checked ? "Your browser may ask whether it may tell you." : "");
    if (on.checked) setText(byId("alert-note"), permissionText(await askPermission()));
  });
  store.subscribe(["mark", "zonesRows", "alertPct", "alertUsd"], ({ symbol, mark, zonesRows, alertPct: pct, alertUsd: usd }) => {
    for (const zone of due({ zones: zonesRows, mark, pct, usd, told, nowMs: now() })) {
      const text = alertText(symbol ?? "", zone, mark);
      if (!notify(text, zone.id)) notice(text, { label: "Show", run: () => picture.jumpToPrice(zone.price) });
    }
  });
}

/** The key that the server may want. */
function wireKey() {
  const prompt = wireKeyprompt((key) => api.setKey(key));
  session.addEventListener("unauthorized", () => prompt.ask(api.key !== null));
}

/** Settings in the address, so that it can be shared. */
function wireAddress() {
  const write = () => {
    const address = urlOfState(store.get()) || location.pathname;
    if (address !== location.search) history.replaceState(null, "", address);
  };
  // Browsers refuse an address that changes with every move of a slider.
  const writeCalmly = atMost(ADDRESS_MS, write);
  store.subscribe(["opacityMap", "opacityDepth", "gamma", "mapLo", "mapHi", "bookLo", "bookHi"], () => writeCalmly());
  store.subscribe(
    ["symbol", "range", "map", "depth", "candles", "realised", "zones", "profile", "heat", "palette", "theme", "log", "lockP99", "tiers",
      "venues", "minUsd", "alertPct", "alertUsd", "panel"],
    write,
  );
}
