/**
 * Why something was not believed or could not be done: one error class, told apart by a word.
 * @module
 */

/** A no with a reason, one of the words in docs/protocol2.md (Refusals) or docs/web.md (Reasons). */
export class Refused extends Error {
  /**
   * @param {string} reason
   * @param {string} [message] for people
   */
  constructor(reason, message = "") {
    super(message ? `${reason}: ${message}` : reason);
    this.name = "Refused";
    this.reason = reason;
  }
}

/** @param {string} message what must have which form @returns {Refused} */
export const malformed = (message) => new Refused("MALFORMED", message);

/**
 * Promise that a thing is there in time.
 * @template T
 * @param {Promise<T>} work
 * @param {number} ms
 * @param {string} reason of what is late
 * @param {string} [what] it has not done, for people
 * @returns {Promise<T>}
 */
export const within = (work, ms, reason, what = "") => {
  /** @type {any} */
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Refused(reason, what && `${what} in ${ms / 1000} s`)), ms)));
  return /** @type {any} */ (Promise.race([work, late]).finally(() => clearTimeout(timer)));
};
