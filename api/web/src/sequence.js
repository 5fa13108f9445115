/**
 * The sequence rule of the push contract, per channel. Pure: a position and a message give a verdict and the next position.
 *
 * Messages are compared by `prev` and not by seq - 1: numbers of states rise by more than one, and a batch of events has the number of
 * its last one.
 *
 * @typedef {{epoch: number, seq: number}} Position
 * @typedef {{from: number, to: number}} Missing both inclusive
 * @typedef {"columns"|"events"|"state"} Kind
 *
 * @typedef {object} Channel
 * @property {string} name
 * @property {Kind} kind
 * @property {Position|null} held where we stand
 * @property {boolean} reset the server has said that `held` is void; its snapshot has not come
 * @property {number} behind beats in a row that said there is more than `held`, though nothing came
 * @property {Position|null} beatAt `held` at the newest of these beats
 * @property {Position|null} renewedAt `held` when the channel was last renewed because of them
 *
 * @typedef {object} Message A snapshot or delta. `first`: number of the first event of a snapshot of events.
 * @property {"snapshot"|"delta"} way
 * @property {number} epoch
 * @property {number} seq
 * @property {number} prev
 * @property {number} [first]
 *
 * @typedef {"first"|"next"|"old"|"gap"|"reset"} Verdict
 */

/** So many beats without what they announce, and the channel is subscribed again. */
export const BEATS_BEHIND = 3;

/** @type {Readonly<Record<string, Kind>>} */
const KINDS = { depth: "columns", liq: "columns", liquidations: "events" };

/** @param {string} name e.g. `depth.BTC` @returns {Channel} */
export function channelOf(name) {
  const kind = KINDS[name.split(".", 1)[0] ?? ""] ?? "state";
  return { name, kind, held: null, reset: false, behind: 0, beatAt: null, renewedAt: null };
}

/**
 * What the rule says of a message that follows number `prev`.
 *
 * (epoch, seq) is the identity of the data, so what is not above `held` in the same epoch has been delivered, whoever says reset. An
 * epoch below is that of a writer that has been replaced, unless the server says reset: then its numbering began anew.
 *
 * @param {Position|null} held
 * @param {{epoch: number, seq: number, prev: number}} message
 * @param {boolean} reset
 * @returns {Verdict}
 */
export function judge(held, message, reset) {
  if (held === null) return "first";
  if (message.epoch !== held.epoch) return message.epoch > held.epoch || reset ? "reset" : "old";
  if (message.seq <= held.seq) return "old";
  return message.prev > held.seq ? "gap" : "next";
}

/**
 * A snapshot or delta: what it is, what is missing before it, and the channel after it.
 *
 * @param {Channel} channel
 * @param {Message} message
 * @returns {{verdict: Verdict, missing: Missing|null, channel: Channel}}
 */
export function accept(channel, message) {
  const prev = before(channel, message);
  const verdict = judge(channel.held, { ...message, prev }, channel.reset);
  if (verdict === "old") {
    const reset = channel.reset && message.way !== "snapshot";
    return { verdict, missing: null, channel: { ...channel, reset } };
  }
  const held = { epoch: message.epoch, seq: message.seq };
  const missing = verdict === "gap" && channel.held !== null && channel.kind !== "state" ? { from: channel.held.seq + 1, to: prev } : null;
  return { verdict, missing, channel: { ...channel, held, reset: false } };
}

/**
 * An announced gap: what is missing, and the channel behind it. Of another epoch, or of what we have: nothing.
 *
 * @param {Channel} channel
 * @param {{epoch: number, to: number}} gap
 * @returns {{missing: Missing|null, channel: Channel}}
 */
export function skip(channel, { epoch, to }) {
  const { held } = channel;
  if (held === null || epoch !== held.epoch || to <= held.seq || channel.kind === "state") return { missing: null, channel };
  return { missing: { from: held.seq + 1, to }, channel: { ...channel, held: { epoch, seq: to } } };
}

/**
 * A beat has told the newest number of the channel. `renew`: it has been ahead for some beats while nothing came, so what was sent is
 * lost; this is said once per position.
 *
 * @param {Channel} channel
 * @param {Position} head
 * @returns {{renew: boolean, channel: Channel}}
 */
export function heard(channel, head) {
  const { held } = channel;
  const ahead = held !== null && (head.epoch > held.epoch || (head.epoch === held.epoch && head.seq > held.seq));
  if (!ahead || !same(channel.beatAt, held)) return { renew: false, channel: { ...channel, beatAt: held, behind: 0 } };
  const behind = channel.behind + 1;
  const renew = behind >= BEATS_BEHIND && !same(channel.renewedAt, held);
  return { renew, channel: { ...channel, behind, renewedAt: renew ? held : channel.renewedAt } };
}

/** The number that a message follows. A snapshot follows whatever is just below what it holds. @param {Channel} channel @param {Message} message */
function before(channel, { way, seq, prev, first }) {
  if (way === "delta") return prev;
  return channel.kind === "events" && first !== undefined ? first - 1 : seq - 1;
}

/** @param {Position|null} one @param {Position|null} other */
function same(one, other) {
  return one === other || (one !== null && other !== null && one.epoch === other.epoch && one.seq === other.seq);
}
