/**
 * How much slower everything is because the machine does other things too: wall time over processor time of a fixed piece
 * of work; 1 where nothing else runs. A time that a page may take is for a machine that it has to itself.
 */
export function slowdown() {
  const workMs = 200;
  const began = performance.now();
  const before = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(before);
    if ((user + system) / 1000 >= workMs) return Math.max(1, (performance.now() - began) / workMs);
  }
}
