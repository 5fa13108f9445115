// Generated from mpengine.contract by `python -m mpengine.contract.typescript`. Do not edit.

/** A whole number. */
export type Int = number;
/** 0 to 255. */
export type U8 = number;

/**
 * Answer to an `op` of `/ws`. `errors`: channels that were not subscribed, and why.
 */
export interface Ack {
  type: "ack";
  id: Int | null;
  channels: Record<string, AckChannel>;
  errors?: Record<string, string>;
}

/**
 * `no`: number of the channel in binary messages; epoch and seq of its newest, null before it.
 */
export interface AckChannel {
  no: Int;
  epoch: Int | null;
  seq: Int | null;
}

/**
 * Seconds; null without data.
 */
export interface Ages {
  liq_s?: number | null;
  depth_s?: number | null;
  oi_s?: number | null;
}

/**
 * `{"op":"list"}` and `{"op":"ping"}` of a client.
 */
export interface Ask {
  op: "list" | "ping";
  id: Int;
}

/**
 * With what the map was made. `leverage_weights`: tier -> share; `mmr`: maintenance margin rate by venue; fractions.
 *
 * `valid_from_ms`: since when these weights are in force, epoch ms; null: since the beginning.
 */
export interface Assumptions {
  leverage_weights: Record<string, number>;
  disabled_tiers: Int[];
  mmr: Record<string, number>;
  formula: "isolated_linear";
  entry_price: "ohlc4_minute";
  oi_split: "taker_share";
  tape_weight: number;
  projection_weight: number;
  decay_per_min: number;
  sweep_reduction: number;
  range_pct: number;
  valid_from_ms: Int | null;
}

/**
 * `{"op":"auth"}`: the first frame within 5 s where keys are on and no header was sent.
 */
export interface Auth {
  op: "auth";
  id: Int;
  key: string;
}

/**
 * Every 5 s. `heads`: channel -> [epoch, seq] of its newest; `exchanges`: venue -> age s; `conflated`: messages left out.
 */
export interface Beat {
  type: "beat";
  now_ms: Int;
  heads: Record<string, [Int, Int]>;
  exchanges: Record<string, number | null>;
  conflated: Int;
}

/**
 * `book.SYM`: the books of the venues.
 */
export interface BookState {
  books: Record<string, VenueBook>;
}

/**
 * The connection is about to be closed. `reconnect_in_ms`: when to come back.
 */
export interface Bye {
  type: "bye";
  reason: string;
  reconnect_in_ms?: Int;
}

/**
 * Everything that the calibrator publishes; counters since this state began. `mmr`: maintenance margin rate by venue.
 *
 * `total_events` = `explained` + `unexplained` + `dropped` + `waiting`; `*_usd` USD; `entropy_bits` of the weights; `*_share`
 * fractions; null where there is nothing to say yet.
 */
export interface Calibrator {
  enabled: boolean;
  attribution: "window" | "event";
  updates: Int;
  moves: Int;
  minutes_since_calibration: Int | null;
  total_events: Int;
  explained: Int;
  unexplained: Int;
  unexplained_usd: number;
  far: Int;
  late: Int;
  rejected: Int;
  waiting: Int;
  pending: Int;
  dropped: Int;
  records: Int;
  records_refused: Int;
  entropy_bits: number;
  conversion: number | null;
  vol: number;
  mmr: Record<string, number>;
  mmr_samples: Record<string, Int>;
  mmr_dropped: Int;
  bias_long: number;
  bias_short: number;
  near_events: Int;
  near_share: number | null;
  pools_approached: Int;
  pools_crossed: Int;
  hit_share: number | null;
  mean_miss: number | null;
  tiers: Record<string, CalibratorTier>;
}

/**
 * The calibrator as of the newest map. Counts of events; `snapshots`: minutes it holds.
 */
export interface CalibratorHealth {
  enabled: boolean;
  total_events: Int;
  snapshots: Int;
  minutes_since_calibration: Int | null;
  pending: Int;
  dropped: Int;
}

/**
 * One leverage tier. `weight`: share; `*_usd` USD; `rate`: liquidated per crossed USD; null where unknown.
 */
export interface CalibratorTier {
  weight: number;
  crossed_usd: number | null;
  attributed_usd: number;
  rate: number | null;
  evidence: number;
  score: number | null;
}

/**
 * A direction canary: `bad` of the last `events` contradict the table of sides.
 */
export interface CanaryHealth {
  events: Int;
  bad: Int;
  alarm: boolean;
}

/**
 * `candles.SYM`: the newest closed minute; units as `Candles`.
 */
export interface Candle {
  t: Int;
  o: number;
  h: number;
  l: number;
  c: number;
  mark: number | null;
  buy_usd: number;
  sell_usd: number;
  buy_count: Int;
  sell_count: Int;
  oi_base: number | null;
  oi_delta_base: number | null;
  funding_rate: number | null;
  liq_long_usd: number;
  liq_short_usd: number;
  liq_count: Int;
  flags: Int;
}

/**
 * `/candles`: closed bars as columns of equal length, oldest first.
 *
 * `t`: open, epoch ms. `o`, `h`, `l`, `c`, `mark` USD; `*_usd` USD; `oi_*_base` base asset; `funding_rate` a fraction. Null: no
 * minute of the bar had a value. `flags`: 1 price from the mark, 2 minutes missing, 4 the feed had a gap.
 */
export interface Candles {
  symbol: string;
  interval_ms: Int;
  t: Int[];
  o: number[];
  h: number[];
  l: number[];
  c: number[];
  mark: (number | null)[];
  buy_usd: number[];
  sell_usd: number[];
  buy_count: Int[];
  sell_count: Int[];
  oi_base: (number | null)[];
  oi_delta_base: (number | null)[];
  funding_rate: (number | null)[];
  liq_long_usd: number[];
  liq_short_usd: number[];
  liq_count: Int[];
  flags: Int[];
  count: Int;
  seq: Int;
  epoch: Int;
  age_s: number;
  stale: boolean;
}

/**
 * `depth.SYM`, `liq.SYM`: one column. `t_ms` its start and `dt_ms` its width, ms; row r: price0 + r * step, USD.
 *
 * `a`, `b`: base64 of u8log cells, bid and ask or long and short. `price0` moves between columns: place them by price.
 */
export interface Column {
  t_ms: Int;
  dt_ms: Int;
  price0: number;
  step: number;
  rows: Int;
  src: number;
  flags: ("recovered" | "gap" | "partial_window" | "stale_source" | "grid_shrunk" | "oi_missing" | "fallback_price" | "provisional" | "restart")[];
  lo_usd: number;
  hi_usd: number;
  a: string;
  b: string;
}

/**
 * What a frame is based on, as of the frame. `*_since_ms`: epoch ms; `far_depth`: how much is known far from the price.
 */
export interface Coverage {
  venues: Record<string, VenueCoverage>;
  flags: ("recovered" | "gap" | "partial_window" | "stale_source" | "grid_shrunk" | "oi_missing" | "fallback_price")[];
  data_since_ms: Int | null;
  book_synced_since_ms: Int | null;
  far_depth: "partial";
}

/**
 * Snapshot or delta of a channel. Accept it when `prev` is your last `seq` of that channel and epoch.
 */
export interface DataMessage {
  ch: string;
  type: "snapshot" | "delta";
  epoch: Int;
  seq: Int;
  prev: Int;
  ts_ms: Int;
  stale: boolean;
  data: unknown;
}

/**
 * `/orderbook_heatmap_debug`.
 */
export interface DepthDebug {
  has_ob_heatmap_module: true;
  ob_buffer_shared: true;
  mode: "embedded";
  ob_buffer_stats: RingStats;
  symbol: string;
  seq: Int | null;
  epoch: Int | null;
  stale: boolean;
}

/**
 * `/orderbook_heatmap`: the newest 30 s frame. `*_ts_ms` epoch ms (`frame_ts_ms`: start of the window), `ts` the same in s.
 *
 * Prices, `step` USD; `norm_*`, `bid_*`, `ask_*`, `total_*` USD of the whole frame; u8 = floor(255 * clip((usd - p50) /
 * (p95 - p50), 0, 1)). `range_pct` null: not asked for. Stale above 90 s.
 */
export interface DepthHeatmap {
  symbol: string;
  frame_ts_ms: Int;
  frame_interval_ms: Int;
  valid_from_ts_ms: Int;
  valid_to_ts_ms: Int;
  server_recv_ts_ms: Int;
  server_send_ts_ms: Int;
  data_is_stale: boolean;
  ts: number;
  src: number;
  step: number;
  price_min: number;
  price_max: number;
  prices: number[];
  bid_u8: U8[];
  ask_u8: U8[];
  norm_p50: number;
  norm_p90: number;
  norm_p95: number;
  norm_p99: number;
  norm_max: number;
  bid_p50: number;
  bid_p95: number;
  bid_max: number;
  ask_p50: number;
  ask_p95: number;
  ask_max: number;
  total_bid_notional: number;
  total_ask_notional: number;
  scale: 255;
  _mode: "shared_buffer";
  base_asset: string;
  range_pct: number | null;
  frame_step: number;
  coverage: Coverage;
  seq: Int;
  epoch: Int;
  age_s: number;
  stale: boolean;
}

/**
 * `/orderbook_heatmap_history`: cells flat and row-major, row = frame. `t`: start of each window, epoch ms, oldest first.
 *
 * `src`, `norm_p50`, `norm_p95`: USD of each frame. Without frames empty arrays, times 0, and null numbers and age.
 */
export interface DepthHistory {
  frame_interval_ms: Int;
  first_frame_ts_ms: Int;
  last_frame_ts_ms: Int;
  server_recv_ts_ms: Int;
  server_send_ts_ms: Int;
  data_is_stale: boolean;
  t: Int[];
  prices: number[];
  bid_u8: U8[];
  ask_u8: U8[];
  step: number;
  price_min: number;
  price_max: number;
  scale: 255;
  norm_method: "p50_p95";
  _mode: "shared_buffer";
  symbol: string;
  minutes: Int;
  stride: Int;
  count: Int;
  src: number[];
  norm_p50: number[];
  norm_p95: number[];
  skipped_frames: Int;
  first_seq: Int | null;
  seq: Int | null;
  epoch: Int | null;
  age_s: number | null;
  stale: boolean;
}

/**
 * Resting size. `seq`: frame number per column, -1 where there is no frame.
 */
export interface DepthLayer {
  seq: Int[];
  bid: (Int | number | [Int, Int, Int | number])[];
  ask: (Int | number | [Int, Int, Int | number])[];
  unit: "usd_resting";
}

/**
 * `/orderbook_heatmap_stats`, 200 also before the first frame. `reconstructor`: the Binance book; `books`: every venue's.
 */
export interface DepthStats {
  frames_in_memory: Int;
  frames_on_disk: Int;
  last_ts: number;
  oldest_ts: number;
  file_size_bytes: Int;
  frames_written_total: Int;
  last_frame_write_ts_ms: Int;
  last_frame_write_duration_ms: number;
  avg_frame_write_duration_ms: number;
  current_time: number;
  current_time_ms: Int;
  frame_interval_ms: Int;
  mode: "shared_buffer";
  last_frame_age_s: number | null;
  last_frame_ts_ms: Int;
  data_is_stale: boolean;
  reconstructor: Reconstructor;
  symbol: string;
  books: Record<string, Reconstructor>;
  seq: Int | null;
  epoch: Int | null;
  stale: boolean;
}

/**
 * Open interest that a venue pushes by itself: `base` base asset, its age in s. Never part of the sum.
 */
export interface DisplayedInterest {
  base: number;
  age_s: number;
}

/**
 * Body of every error. `error`: a code of `ERROR_CODES`; `detail`: a fixed text, never what the caller sent.
 */
export interface Error {
  error: string;
  detail: string;
}

/**
 * What a client sent was refused; codes as of HTTP, and `too_many`.
 */
export interface ErrorMessage {
  type: "error";
  id?: Int | null;
  error: string;
  detail: string;
}

/**
 * What did not come: numbers from `from` to `to`. Columns are refetched with `/heatmap?since_ms=`, events with
 * `/liquidations?after=`, states need nothing.
 */
export interface Gap {
  from: Int;
  to: Int;
  reason: string;
}

/**
 * Comes before a message whose `prev` is not your last `seq`.
 */
export interface GapMessage {
  ch: string;
  type: "gap";
  epoch: Int;
  seq: Int;
  prev: Int;
  ts_ms: Int;
  stale: boolean;
  data: Gap;
}

/**
 * `/health`, 503 with this body while `status` is starting. `uptime_s` s, `now_ms` epoch ms; `errors`: counters since start.
 *
 * `cross_canary`: minutes in which venues' sides disagreed; null while none can be compared.
 */
export interface Health {
  ok: boolean;
  version: string;
  mode: "embedded";
  uptime_s: number;
  ob_buffer: ObBuffer;
  symbols: Record<string, SymbolHealth>;
  status: "ok" | "degraded" | "starting";
  build: string;
  contract: string;
  config_hash: string;
  now_ms: Int;
  exchanges: Record<string, VenueHealth>;
  processes: Record<string, ProcessHealth>;
  errors: Record<string, Int>;
  cross_canary: CanaryHealth | null;
}

/**
 * `/heatmap`. Column c covers [t0_ms + c * dt_ms, + dt_ms); row r has its centre at price0 + r * step, USD.
 *
 * `k`: symbol steps per row. `cell` u8log: 0 nothing, else lo_usd * (hi_usd / lo_usd) ** ((cell - 1) / 254) USD; usd: USD with 3
 * significant digits. `src`: one price per column, null where none is known. `epoch` null
 * without any frame or record.
 */
export interface Heatmap {
  symbol: string;
  schema: 1;
  minutes: Int;
  t0_ms: Int;
  dt_ms: Int;
  cols: Int;
  price0: number;
  step: number;
  rows: Int;
  k: Int;
  pool: "max" | "sum";
  form: "dense" | "sparse";
  cell: "u8log" | "usd";
  lo_usd: number;
  hi_usd: number;
  src: (number | null)[];
  layers: Layers;
  realised?: Realised;
  provenance: Provenance;
  epoch: Int | null;
  seq: Sequences;
  ages: Ages;
  stale: boolean;
}

/**
 * The projection. `leverage_weights`: tier -> share, disabled tiers 0.0; prices and `*_usd` USD; `current_minute` epoch/60.
 */
export interface InferenceStats {
  symbol: string;
  current_minute: Int;
  current_price: number;
  total_inferred_long_usd: number;
  total_inferred_short_usd: number;
  projected_long_buckets: Int;
  projected_short_buckets: Int;
  inferences_in_window: Int;
  leverage_weights: Record<string, number>;
}

/**
 * `oi.SYM`: keys of `/oi` that do not move with time. `ts`, `exchange_ts` epoch s; base asset, `aggregated_oi_usd` USD.
 */
export interface InterestState {
  symbol: string;
  aggregated_oi: number;
  per_exchange: Record<string, number>;
  ts: number;
  unit: string;
  base_asset: string;
  aggregated_oi_usd: number | null;
  exchange_ts: Record<string, number>;
  stale_exchanges: string[];
}

/**
 * The layers asked for. `liq`: tape and projection together.
 */
export interface Layers {
  liq?: MapLayer;
  tape?: MapLayer;
  projected?: MapLayer;
  depth?: DepthLayer;
}

/**
 * A pool of one side. Prices USD (`price`: the centroid by USD); `*_usd` USD; `intensity` 0..1; `size_base` base asset.
 */
export interface Level {
  price: number;
  price_low: number;
  price_high: number;
  notional_usd: number;
  intensity: number;
  bucket_count: Int;
  tape_usd: number;
  projected_usd: number;
  source: "tape" | "inference" | "combined";
  size_base: number;
}

/**
 * `levels.SYM`: pools of the newest minute. `ts_ms`: its end, epoch ms; `price` (OHLC4), `src` (close) USD.
 */
export interface LevelsState {
  ts_ms: Int;
  price: number;
  src: number;
  long_levels: Level[];
  short_levels: Level[];
  meta: MapMeta;
}

/**
 * `/liq_heatmap` (V1): the newest minute, smoothed and stretched, +/- 8 %.
 *
 * `ts`: end of the minute, epoch s; `src`: closing price, prices and `step` USD; `*_intensity` 0..1; `*_notional_usd` USD of the
 * bucket; `*_size_base` base asset, `*_size_btc` the same under its old name (`api.legacy_size_keys`). `intensity_scale`: the
 * largest intensity before any stretch. `_warning` is there above 120 s; stale above 180 s.
 */
export interface LiqHeatmap {
  schema_version: 2;
  symbol: string;
  ts: number;
  src: number;
  step: number;
  price_min: number;
  price_max: number;
  prices: number[];
  long_intensity: number[];
  short_intensity: number[];
  long_notional_usd: number[];
  short_notional_usd: number[];
  long_size_btc?: number[];
  short_size_btc?: number[];
  top_long_zones: ShownZone[];
  top_short_zones: ShownZone[];
  norm: Norm;
  base_asset: string;
  long_size_base: number[];
  short_size_base: number[];
  intensity_scale: number;
  coverage: Coverage;
  seq: Int;
  epoch: Int;
  snapshot_age_s: number;
  stale: boolean;
  _warning?: string;
}

/**
 * `/liq_heatmap_v2`: the newest minute as it is, +/- 10 %, with its 20 strongest pools per side and statistics.
 *
 * `price`: (open + high + low + close) / 4, `src`: close, USD; arrays and the keys behind them as in `LiqHeatmap`.
 */
export interface LiqHeatmapV2 {
  symbol: string;
  ts: number;
  price: number;
  range_pct: number;
  long_levels: Level[];
  short_levels: Level[];
  meta: MapMeta;
  stats: MapStats;
  src: number;
  step: number;
  price_min: number;
  price_max: number;
  prices: number[];
  long_intensity: number[];
  short_intensity: number[];
  long_notional_usd: number[];
  short_notional_usd: number[];
  long_size_btc?: number[];
  short_size_btc?: number[];
  base_asset: string;
  long_size_base: number[];
  short_size_base: number[];
  intensity_scale: number;
  coverage: Coverage;
  seq: Int;
  epoch: Int;
  snapshot_age_s: number;
  stale: boolean;
  _warning?: string;
}

/**
 * `/liq_heatmap_history`, `/liq_heatmap_v2_history`: cells flat and row-major, row = minute, round(255 * intensity).
 *
 * `t`: end of each minute, epoch ms, oldest first; `src`: (open + high + low + close) / 4 of each, USD; `norm_*_usd`: USD that
 * is intensity 1 of each source. Without frames empty arrays, an axis of the symbol, and null numbers and age.
 */
export interface LiqHistory {
  t: Int[];
  prices: number[];
  long: U8[];
  short: U8[];
  step: number;
  scale: 255;
  _mode: "embedded";
  symbol: string;
  minutes: Int;
  stride: Int;
  count: Int;
  src: number[];
  norm_tape_usd: number[];
  norm_projection_usd: number[];
  skipped_frames: Int;
  first_seq: Int | null;
  seq: Int | null;
  epoch: Int | null;
  stale: boolean;
  age_s: number | null;
}

/**
 * `/liq_stats`. `snapshot_ts`: end of the minute, epoch s; `history_frames`: minutes that the ring holds.
 */
export interface LiqStats {
  symbol: string;
  current_minute: Int;
  current_price: number;
  total_force_orders: Int;
  total_inferences: Int;
  tape: TapeStats;
  inference: InferenceStats;
  config: MapConfig;
  zone_manager: ZoneManager;
  snapshot_ts: number;
  snapshot_age_s: number;
  history_frames: Int;
  calibrator: Calibrator;
  seq: Int;
  epoch: Int;
  stale: boolean;
}

/**
 * A realised liquidation. `side`: the position that was closed; `ts_ms` venue's time, `recv_ms` ours, epoch ms.
 *
 * Prices USD, `qty_base` base asset. `price_kind`: `fill`, `trigger` (derived from `bankruptcy_price`), `liq_mark`.
 */
export interface Liquidation {
  seq: Int;
  ts_ms: Int;
  recv_ms: Int;
  venue: "binance" | "bybit" | "okx" | "gate" | "bitget" | "hyperliquid";
  side: "long" | "short";
  price: number;
  price_kind: "fill" | "trigger" | "liq_mark";
  bankruptcy_price: number | null;
  qty_base: number;
  notional_usd: number;
}

/**
 * `liquidations.SYM`: events since the message before, ascending.
 */
export interface LiquidationBatch {
  items: Liquidation[];
}

/**
 * `/liquidations`: one page, ascending; go on with `after` = `next_after` while `has_more`.
 *
 * Numbers are null without any record. `gap`: rows between `after` and `oldest_seq` are gone. `reset` is there (true) only
 * where another epoch was asked for: then this is the newest page.
 */
export interface Liquidations {
  symbol: string;
  items: Liquidation[];
  count: Int;
  first_seq: Int | null;
  last_seq: Int | null;
  oldest_seq: Int | null;
  newest_seq: Int | null;
  next_after: Int;
  has_more: boolean;
  gap: boolean;
  reset?: true;
  coverage: Coverage;
  seq: Int | null;
  epoch: Int | null;
  age_s: number | null;
  stale: boolean;
}

/**
 * `/livez`: the worker's loop runs.
 */
export interface Live {
  live: true;
}

/**
 * Settings in force. `steps` USD; `buffer`: maintenance margin rate of the first venue, `mmr` of each.
 */
export interface MapConfig {
  steps: number;
  decay: number;
  buffer: number;
  tape_weight: number;
  projection_weight: number;
  mmr: Record<string, number>;
}

/**
 * Both sides of a liquidation map. `seq`: frame number per column, -1 where there is no frame.
 */
export interface MapLayer {
  seq: Int[];
  long: (Int | number | [Int, Int, Int | number])[];
  short: (Int | number | [Int, Int, Int | number])[];
  unit: "usd_exposure";
}

/**
 * How levels were made. `min_notional_usd`: the floor in force, USD; `raw_*_buckets`: positive buckets.
 */
export interface MapMeta {
  tape_weight: number;
  projection_weight: number;
  force_orders_total: Int;
  inferences_total: Int;
  cluster_radius_pct: number;
  min_notional_usd: number;
  long_pools_count: Int;
  short_pools_count: Int;
  raw_long_buckets: Int;
  raw_short_buckets: Int;
}

/**
 * `stats` of V2, with which `/liq_stats` begins. `current_minute`: epoch/60; `current_price` USD.
 */
export interface MapStats {
  symbol: string;
  current_minute: Int;
  current_price: number;
  total_force_orders: Int;
  total_inferences: Int;
  tape: TapeStats;
  inference: InferenceStats;
  config: MapConfig;
}

/**
 * The stretch of a V1 map, in units of intensity.
 */
export interface Norm {
  method: "p50_p95";
  p50: number;
  p95: number;
}

/**
 * Depth frames of the first symbol with a book. `last_ts`: start of the newest window, epoch s; 0.0 without one.
 */
export interface ObBuffer {
  frames_in_memory: Int;
  last_ts: number;
  shared: true;
}

/**
 * `/oi`: single-sided open interest in base asset (`unit`), by venue and in sum.
 *
 * `ts`, `exchange_ts`: epoch s at which values came; `aggregated_oi_usd` null without a price. `stale_exchanges`: venues whose
 * newest value is older than 60 s, which are in neither `per_exchange` nor the sum.
 */
export interface OpenInterest {
  symbol: string;
  aggregated_oi: number;
  per_exchange: Record<string, number>;
  ts: number;
  unit: string;
  base_asset: string;
  aggregated_oi_usd: number | null;
  exchange_ts: Record<string, number>;
  stale_exchanges: string[];
  age_s: number;
  stale: boolean;
  seq: Int;
  epoch: Int;
  display_only: Record<string, DisplayedInterest>;
}

/**
 * One process. `state`: LIVE is good; `age_s`: since its last beat, null while it does not run.
 */
export interface ProcessHealth {
  state: string;
  restarts: Int;
  age_s: number | null;
}

/**
 * Where the numbers come from. `estimated` is always true for map layers; `assumptions` null before the first map.
 */
export interface Provenance {
  model: string;
  estimated: boolean;
  config_hash: string;
  assumptions: Assumptions | null;
  coverage: Coverage;
}

/**
 * `/readyz`, with 200 and 503. `fresh_symbols` of `symbols` have data that is not stale.
 */
export interface Ready {
  ready: boolean;
  degraded: boolean;
  fresh_symbols: Int;
  symbols: Int;
}

/**
 * Realised liquidations by cell: col, row, side, venues (bit set: 1 Binance, 2 Bybit, 4 OKX, 8 Gate, 16 Bitget), count,
 * USD, largest USD.
 */
export interface Realised {
  fields: ("col" | "row" | "side" | "venues" | "count" | "usd" | "max_usd")[];
  points: ([Int, Int, "long" | "short", Int, Int, number, number])[];
  unit: "usd_liquidated";
  seq: Int | null;
}

/**
 * A venue's book. Either `error` alone (there is none) or every other key.
 *
 * `levels_*`, `diffs_*`, `*_count` counts; prices USD, 0.0 without one; `last_update_ts`, `written_at` epoch s; `*_s` seconds.
 */
export interface Reconstructor {
  error?: string;
  state?: "unsynced" | "syncing" | "synced";
  synced?: boolean;
  snapshot_last_update_id?: Int;
  last_applied_u?: Int;
  first_diff_applied_U?: Int;
  first_diff_applied_u?: Int;
  levels_bid?: Int;
  levels_ask?: Int;
  best_bid?: number;
  best_ask?: number;
  resyncs?: Int;
  diffs_buffered?: Int;
  diffs_applied?: Int;
  diffs_discarded?: Int;
  last_update_ts?: number;
  gap_tolerance?: Int;
  last_gap_type?: "" | "pu_mismatch" | "u_gap";
  last_gap_pu?: Int;
  last_gap_expected?: Int;
  pu_gap_count?: Int;
  u_gap_count?: Int;
  max_sync_duration_s?: number;
  diffs_in_current_sync?: Int;
  written_at?: number;
  stats_age_s?: number;
}

/**
 * Forget what you know of the channel: a snapshot of another epoch follows.
 */
export interface ResetMessage {
  ch: string;
  type: "reset";
  epoch: Int;
  seq: Int;
  prev: Int;
  ts_ms: Int;
  stale: boolean;
  data: Record<string, unknown>;
}

/**
 * The depth ring. `*_ts` epoch s, `*_ts_ms` epoch ms (0 before a frame), durations ms; disk and memory are the same file.
 */
export interface RingStats {
  frames_in_memory: Int;
  frames_on_disk: Int;
  last_ts: number;
  oldest_ts: number;
  file_size_bytes: Int;
  frames_written_total: Int;
  last_frame_write_ts_ms: Int;
  last_frame_write_duration_ms: number;
  avg_frame_write_duration_ms: number;
}

/**
 * Newest frame or record number of each source that was asked for; null where there is none.
 */
export interface Sequences {
  liq?: Int | null;
  depth?: Int | null;
  realised?: Int | null;
}

/**
 * A pool that has been among the strongest for `age_min` minutes. `price` USD, 2 decimals.
 */
export interface ShownZone {
  price: number;
  strength: number;
  age_min: Int;
}

/**
 * `status`: state of the service, of each venue and of each symbol (stale or not).
 */
export interface StatusState {
  status: "ok" | "degraded" | "starting";
  exchanges: Record<string, "LIVE" | "STALE" | "DOWN" | "BANNED" | "GEO_BLOCKED">;
  symbols: Record<string, boolean>;
}

/**
 * One stream of a venue. `lag_ms`: receive time minus venue time of its newest message; may be negative.
 */
export interface StreamHealth {
  state: "LIVE" | "STALE" | "DOWN" | "BANNED" | "GEO_BLOCKED";
  age_s: number | null;
  messages: Int;
  errors: Int;
  lag_ms: number | null;
}

/**
 * `{"op":"subscribe"}` of a client. `from`: channel -> [epoch, seq] to resume at; `encoding` bin applies to columns.
 */
export interface Subscribe {
  op: "subscribe";
  id: Int;
  channels: string[];
  encoding?: "json" | "bin";
  from?: Record<string, [Int, Int]>;
}

/**
 * One symbol. `v*_ts`: end of the newest minute, epoch s; `*_seq` frame numbers; ages s; `step`, `ob_step` USD.
 *
 * `books`: state of each venue's book; `open_interest`: age of each venue's newest value, s.
 */
export interface SymbolHealth {
  v1_available: boolean;
  v1_ts: number;
  v2_available: boolean;
  v2_ts: number;
  v1_history_frames: Int;
  v2_history_frames: Int;
  engine: "starting" | "live" | "stopped" | "failed" | "dead" | "stalled" | "missing";
  stale: boolean;
  liq_seq: Int | null;
  liq_age_s: number | null;
  depth_seq: Int | null;
  depth_age_s: number | null;
  oi_age_s: number | null;
  book: "none" | "unsynced" | "syncing" | "synced";
  step: number;
  ob_step: number;
  base_asset: string;
  data_since_ms: Int | null;
  calibrator: CalibratorHealth;
  books: Record<string, "unsynced" | "syncing" | "synced">;
  open_interest: Record<string, number>;
}

/**
 * The tape. `total_*`: since this state began, USD; `offset_samples_by_lev` is always empty now.
 */
export interface TapeStats {
  symbol: string;
  total_events: Int;
  total_long_notional: number;
  total_short_notional: number;
  long_buckets: Int;
  short_buckets: Int;
  events_in_window: Int;
  offset_samples_by_lev: Record<string, Int>;
}

/**
 * `/time`: the clock that ages are counted with. `now_ms` epoch ms, `uptime_s` seconds.
 */
export interface Time {
  now_ms: Int;
  uptime_s: number;
}

/**
 * `{"op":"unsubscribe"}` of a client.
 */
export interface Unsubscribe {
  op: "unsubscribe";
  id: Int;
  channels: string[];
}

/**
 * One venue's book. Prices and sums USD, null without one; `last_update_ms` epoch ms.
 */
export interface VenueBook {
  state: "unsynced" | "syncing" | "synced";
  best_bid: number | null;
  best_ask: number | null;
  total_bid_usd: number;
  total_ask_usd: number;
  last_update_ms: Int | null;
}

/**
 * Direction canaries of one venue; null where it has no such figure.
 */
export interface VenueCanaries {
  price_side: CanaryHealth | null;
  return_sign: CanaryHealth | null;
  alarm: boolean;
}

/**
 * One venue in a frame. `depth`: its book counted; `oi`: its open interest was at most 60 s old at the end of the frame.
 *
 * `state` of its book: LIVE counted, STALE not counted, DOWN unsynchronised, null none; `last_ms`: its newest book update, ms.
 */
export interface VenueCoverage {
  liquidations: "largest_1s" | "all_500ms" | "partial" | "batched_1s" | "largest_per_side_1s" | "none";
  depth: boolean;
  oi: boolean;
  state: "LIVE" | "STALE" | "DOWN" | "BANNED" | "GEO_BLOCKED" | null;
  last_ms: Int | null;
}

/**
 * One venue as ingest sees it now. `age_s`: of its newest message, null before one.
 */
export interface VenueHealth {
  state: "LIVE" | "STALE" | "DOWN" | "BANNED" | "GEO_BLOCKED";
  age_s: number | null;
  reconnects: Int;
  liquidations: "largest_1s" | "all_500ms" | "partial" | "batched_1s" | "largest_per_side_1s" | "none";
  streams: Record<string, StreamHealth>;
  canary: VenueCanaries;
}

/**
 * A zone. `price` USD; `created_at`, `last_reinforced_at` epoch ms; `tier_contributions`: weight by leverage tier.
 *
 * `*_usd`: USD that the zone carries (notional = tape + projected), fading with its weight; `age_min` whole minutes.
 */
export interface Zone {
  price: number;
  side: "long" | "short";
  weight: number;
  created_at: Int;
  last_reinforced_at: Int;
  reinforcement_count: Int;
  source: "inference" | "tape" | "combined" | "sweep";
  tier_contributions: Record<string, number>;
  id: string;
  notional_usd: number;
  tape_usd: number;
  projected_usd: number;
  age_min: Int;
  dominant_leverage: Int | null;
}

/**
 * Filters in force; null where absent.
 */
export interface ZoneFilters {
  side: "long" | "short" | null;
  min_leverage: Int | null;
  max_leverage: Int | null;
  min_weight: number | null;
}

/**
 * A zone as a level. `notional_usd`: USD that it carries, never made up from the weight (`synthetic` false); times epoch ms.
 */
export interface ZoneLevel {
  price: number;
  weight: number;
  notional_usd: number;
  tier_contributions: Record<string, number>;
  reinforcement_count: Int;
  source: "inference" | "tape" | "combined" | "sweep";
  created_at: Int;
  last_reinforced_at: Int;
  side: "long" | "short";
  synthetic: boolean;
}

/**
 * Zones that stand, their weight (dimensionless), and what happened to zones so far.
 */
export interface ZoneManager {
  active_zones_long: Int;
  active_zones_short: Int;
  total_weight_long: number;
  total_weight_short: number;
  zones_created_total: Int;
  zones_reinforced_total: Int;
  zones_swept_total: Int;
  zones_expired_total: Int;
  zones_merged_total: Int;
}

/**
 * `/liq_zones`: heaviest first, then by price. `ts`: of the document, epoch s.
 */
export interface Zones {
  symbol: string;
  ts: number;
  zones: Zone[];
  zones_count: Int;
  summary: ZoneManager;
  filters: ZoneFilters;
  seq: Int;
  epoch: Int;
  age_s: number;
  stale: boolean;
}

/**
 * `zones.SYM`, delta: zones that are new or changed, ids that are gone; `count` and `crc32` as after applying it.
 */
export interface ZonesDelta {
  set: Zone[];
  removed: string[];
  count: Int;
  crc32: Int;
}

/**
 * `/liq_zones_heatmap`: zones as levels of both sides, heaviest first. `ts`: of the document, epoch s.
 */
export interface ZonesHeatmap {
  symbol: string;
  ts: number;
  long_levels: ZoneLevel[];
  short_levels: ZoneLevel[];
  meta: ZonesHeatmapMeta;
  seq: Int;
  epoch: Int;
  age_s: number;
  stale: boolean;
}

/**
 * Filters in force and what passed them. `min_notional` USD.
 */
export interface ZonesHeatmapMeta {
  min_leverage: Int | null;
  max_leverage: Int | null;
  min_weight: number | null;
  min_notional: number;
  filtered: boolean;
  long_pools_count: Int;
  short_pools_count: Int;
  total_long_weight: number;
  total_short_weight: number;
  zones_created: Int;
  zones_swept: Int;
}

/**
 * `zones.SYM`, snapshot: all zones. `crc32`: CRC-32 of `id:weight%.4f;` over all zones, by id.
 */
export interface ZonesSnapshot {
  zones: Zone[];
  count: Int;
  crc32: Int;
}

/**
 * `/liq_zones_summary`. `ts`: of the document, epoch s.
 */
export interface ZonesSummary {
  active_zones_long: Int;
  active_zones_short: Int;
  total_weight_long: number;
  total_weight_short: number;
  zones_created_total: Int;
  zones_reinforced_total: Int;
  zones_swept_total: Int;
  zones_expired_total: Int;
  zones_merged_total: Int;
  symbol: string;
  ts: number;
  seq: Int;
  epoch: Int;
  age_s: number;
  stale: boolean;
}

/** What a push connection may send. */
export type PushMessage = DataMessage | GapMessage | ResetMessage | Beat | Ack | ErrorMessage | Bye;
/** What a client may send over /ws. */
export type PushCommand = Subscribe | Unsubscribe | Ask | Auth;

/** `data` of a snapshot or delta by kind of channel. */
export interface ChannelData {
  depth: Column;
  liq: Column;
  liquidations: LiquidationBatch;
  zones: ZonesSnapshot | ZonesDelta;
  levels: LevelsState;
  oi: InterestState;
  candles: Candle;
  book: BookState;
  status: StatusState;
}
