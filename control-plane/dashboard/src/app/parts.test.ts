import { expect, it, vi } from "vitest";
import { held } from "./parts.ts";

it("gives what was imported, and never settles when the page is loaded anew instead", async () => {
  expect(await held(async () => ({ default: "a part" }))()).toEqual({ default: "a part" });
  const settled = vi.fn();
  // What an import answers once somebody took care of its failure.
  void held(async () => undefined)().then(settled, settled);
  await new Promise((resolve) => setTimeout(resolve));
  expect(settled).not.toHaveBeenCalled();
});

it("throws what the import throws", async () => {
  await expect(held(() => Promise.reject(new Error("no such file")))()).rejects.toThrow("no such file");
});
