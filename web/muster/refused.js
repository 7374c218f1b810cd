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
