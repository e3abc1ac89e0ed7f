/** A TCP relay between a browser and the controller, which can be cut. */
import { connect, createServer } from "node:net";

export class Relay {
  #server;
  #sockets = new Set();
  #down = false;

  /** Begins to listen. `origin` is then where the controller is seen through the relay. */
  static async to(target) {
    const url = new URL(target);
    const relay = new Relay();
    relay.#server = createServer((near) => {
      if (relay.#down) {
        near.destroy();
        return;
      }
      const far = connect(Number(url.port), url.hostname);
      for (const socket of [near, far]) {
        relay.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          relay.#sockets.delete(socket);
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far);
      far.pipe(near);
    });
    await new Promise((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    relay.origin = `${url.protocol}//127.0.0.1:${relay.#server.address().port}`;
    return relay;
  }

  /** Breaks all connections and takes no new ones. */
  cut() {
    this.#down = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#down = false;
  }

  close() {
    this.cut();
    this.#server.close();
  }
}
