import { expect, test } from "vitest";
import { sizeOf, sizeText } from "./size.ts";

test("sizes are read as people write them and written without loss", () => {
  expect(["512 MiB", "1.5GiB", "2g", "4096", "1TiB"].map(sizeOf)).toEqual([
    536870912, 1610612736, 2147483648, 4096, 1099511627776,
  ]);
  expect(["", "MiB", "-1", "3 apples", "0.3"].map(sizeOf)).toEqual([null, null, null, null, null]);
  expect([536870912, 1610612736, 1000].map(sizeText)).toEqual(["512MiB", "1536MiB", "1000"]);
});
