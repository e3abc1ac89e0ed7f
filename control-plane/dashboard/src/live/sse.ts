/** Reads a stream of server-sent events. Pure: text in, messages out. */

export interface Message {
  /** The event's name; `message` if the stream gives none. */
  name: string;
  id: string | undefined;
  data: string;
}

/** Collects the lines of a stream and returns the messages that are complete. */
export class MessageReader {
  #rest = "";
  #name = "";
  #id: string | undefined;
  #data: string[] = [];

  push(text: string): Message[] {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const messages: Message[] = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0 || this.#name !== "") {
          messages.push({ name: this.#name || "message", id: this.#id, data: this.#data.join("\n") });
        }
        this.#name = "";
        this.#id = undefined;
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") this.#name = value;
      else if (field === "id") this.#id = value;
      else if (field === "data") this.#data.push(value);
    }
    return messages;
  }
}
