/**
 * What the page shows, in one place: plain values, replaced and never changed in place. Pure.
 *
 * @typedef {"liq"|"tape"|"projected"} MapLayer
 * @typedef {"1h"|"4h"|"12h"|"1d"} Range
 * @typedef {"LIVE"|"PAUSED"|"STALE"} Badge
 * @typedef {"viridis"|"inferno"|"cividis"|"mono"} Palette
 * @typedef {import("../types/contract").Zone} Zone
 * @typedef {import("../types/contract").Liquidation} Liquidation
 *
 * @typedef {object} Gap What is missing or was missing, for the banner. `kind`: `healing` it is being fetched, `lost` the server
 *   does not have it, `restart` the engine has restarted.
 * @property {"healing"|"lost"|"restart"} kind
 * @property {string} channel
 * @property {string} text one sentence
 *
 * @typedef {object} Ages Seconds by the server's clock; null before any data. `map`: since the end of the newest minute of the map,
 *   `book`: since the start of the newest book column, `message`: since anything came, `venues`: of each venue's newest message.
 * @property {number|null} map
 * @property {number|null} book
 * @property {number|null} message
 * @property {Record<string, number|null>} venues
 *
 * @typedef {object} VenueRow One venue. `lagMs`: receive time minus venue time of its newest message, the largest of its streams.
 * @property {string} state LIVE, STALE, DOWN, BANNED, GEO_BLOCKED
 * @property {number|null} ageS
 * @property {number|null} lagMs
 * @property {number|null} reconnects
 * @property {string|null} liquidations what its liquidation feed carries; `none`: it has no public one
 * @property {boolean|null} depth whether its book counted in the newest frame
 * @property {boolean|null} oi
 *
 * @typedef {object} Status `service` and `symbols` (symbol -> stale) as the server says; `conflated`: messages that this page was
 *   not sent because it was slow; `bytes`: push bytes that came; `retryAtMs`: when the next attempt is due, null while connected;
 *   `dataSinceMs`, `bookSinceMs`: since when the data reaches back without a break, epoch ms.
 * @property {"ok"|"degraded"|"starting"|null} service
 * @property {Record<string, boolean>} symbols
 * @property {number} conflated
 * @property {number} bytes
 * @property {number|null} retryAtMs
 * @property {number|null} dataSinceMs
 * @property {number|null} bookSinceMs
 * @property {string|null} version
 *
 * @typedef {object} State
 * @property {string|null} symbol
 * @property {Range} range
 * @property {MapLayer|null} map
 * @property {boolean} depth
 * @property {boolean} candles
 * @property {boolean} realised
 * @property {boolean} zones
 * @property {boolean} profile
 * @property {boolean} heat
 * @property {number} opacityMap
 * @property {number} opacityDepth
 * @property {Palette} palette
 * @property {"dark"|"light"|null} theme null: as the system says
 * @property {number} mapLo USD
 * @property {number} mapHi USD
 * @property {number} bookLo USD
 * @property {number} bookHi USD
 * @property {number} gamma
 * @property {boolean} log
 * @property {boolean} lockP99
 * @property {number[]|null} tiers leverage tiers of zones; null: all
 * @property {string[]|null} venues of realised liquidations; null: all
 * @property {number} minUsd of zones, USD
 * @property {number|null} alertPct
 * @property {number|null} alertUsd
 * @property {string|null} panel
 * @property {boolean} paused
 * @property {Badge} badge
 * @property {string} reason one sentence
 * @property {boolean} alsoStale paused, and what lies behind is stale too
 * @property {string[]} staleCodes every cause of STALE that holds, the first of them in `reason`
 * @property {number} buffered columns that wait while paused
 * @property {Ages} ages
 * @property {Record<string, VenueRow>} venuesHealth
 * @property {Gap|null} gap
 * @property {Record<string, any>|null} provenance of the newest snapshot
 * @property {Zone[]} zonesRows that pass `tiers` and `minUsd`, heaviest first
 * @property {Liquidation[]} events newest last, at most 200
 * @property {number|null} mark USD
 * @property {"connecting"|"waiting"|"ws"|"sse"|"poll"} transport
 * @property {Status} status
 */

/** @type {readonly Range[]} */
export const RANGES = ["1h", "4h", "12h", "1d"];
/** Minutes and column width in s of each range. @type {Record<Range, {minutes: number, dtS: number}>} */
export const RANGE_GRID = {
  "1h": { minutes: 60, dtS: 60 },
  "4h": { minutes: 240, dtS: 60 },
  "12h": { minutes: 720, dtS: 60 },
  "1d": { minutes: 1440, dtS: 120 },
};
/** Liquidations that are kept for lists. */
export const EVENTS_KEPT = 200;

/** @type {Readonly<State>} */
export const DEFAULTS = Object.freeze({
  symbol: null,
  range: "12h",
  map: "liq",
  depth: true,
  candles: true,
  realised: true,
  zones: true,
  profile: true,
  heat: true,
  opacityMap: 0.9,
  opacityDepth: 0.6,
  palette: "viridis",
  theme: null,
  mapLo: 10_000,
  mapHi: 10_000_000,
  bookLo: 10_000,
  bookHi: 10_000_000,
  gamma: 1,
  log: true,
  lockP99: true,
  tiers: null,
  venues: null,
  minUsd: 0,
  alertPct: null,
  alertUsd: null,
  panel: null,
  paused: false,
  badge: "STALE",
  reason: "Loading the heatmap.",
  alsoStale: false,
  staleCodes: [],
  buffered: 0,
  ages: { map: null, book: null, message: null, venues: {} },
  venuesHealth: {},
  gap: null,
  provenance: null,
  zonesRows: [],
  events: [],
  mark: null,
  transport: "connecting",
  status: {
    service: null, symbols: {}, conflated: 0, bytes: 0, retryAtMs: null, dataSinceMs: null, bookSinceMs: null, version: null,
  },
});

/**
 * @callback Listener
 * @param {Readonly<State>} state
 * @param {ReadonlySet<keyof State>} changed
 *
 * @typedef {object} Store
 * @property {() => Readonly<State>} get
 * @property {(patch: Partial<State>) => void} set
 * @property {(keys: readonly (keyof State)[], listener: Listener) => () => void} subscribe returns what ends it
 */

/**
 * A store. Listeners are called once per `set` that changed one of their keys (`Object.is`), in the order of their subscription. A `set`
 * inside of a listener is applied at once and told after the running round, so that every listener sees changes in one order.
 *
 * @param {Partial<State>} [initial] over DEFAULTS
 * @returns {Store}
 */
export function createStore(initial = {}) {
  /** @type {Readonly<State>} */
  let state = Object.freeze({ ...DEFAULTS, ...initial });
  /** @type {Set<{keys: readonly (keyof State)[], listener: Listener}>} */
  const subscriptions = new Set();
  /** @type {Set<keyof State>[]} */
  const rounds = [];
  let telling = false;

  function tell() {
    if (telling) return;
    telling = true;
    try {
      for (let changed = rounds.shift(); changed; changed = rounds.shift()) {
        for (const one of [...subscriptions]) {
          const keys = changed;
          if (subscriptions.has(one) && one.keys.some((key) => keys.has(key))) one.listener(state, keys);
        }
      }
    } finally {
      telling = false;
      rounds.length = 0;
    }
  }

  return {
    get: () => state,
    set(patch) {
      const changed = /** @type {(keyof State)[]} */ (Object.keys(patch)).filter((key) => !Object.is(state[key], patch[key]));
      if (!changed.length) return;
      state = Object.freeze({ ...state, ...patch });
      rounds.push(new Set(changed));
      tell();
    },
    subscribe(keys, listener) {
      const one = { keys, listener };
      subscriptions.add(one);
      return () => void subscriptions.delete(one);
    },
  };
}
