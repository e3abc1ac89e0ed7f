import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { emptyForm, type Form } from "./form.ts";
import { useForm } from "./useForm.ts";

/** A URL that becomes what it is told only when the test says so, as on a busy machine. */
const url = vi.hoisted(() => ({ value: {} as unknown, told: [] as unknown[], change: (_: unknown) => {} }));
vi.mock("../../../ui/search-state.ts", () => ({ useSearchState: () => [url.value, url.change] }));

beforeEach(() => {
  vi.useFakeTimers();
  url.value = emptyForm;
  url.told = [];
  url.change = (to) => url.told.push(to);
});
afterEach(() => {
  vi.useRealTimers();
});

function shown() {
  const { result, rerender } = renderHook(() => useForm());
  return {
    form: () => result.current[0],
    type: (changes: Partial<Form>) => act(() => result.current[1](changes)),
    pause: () => act(() => vi.advanceTimersByTime(300)),
    follow: (to: unknown) => {
      url.value = to;
      rerender();
    },
  };
}

it("keeps what was typed while the URL followed late", () => {
  const page = shown();
  page.type({ name: "web" });
  page.pause();
  page.type({ count: "4" });
  page.pause();
  page.type({ memory: "128 MiB" });
  const [first, second] = url.told;
  page.follow(first);
  expect(page.form()).toMatchObject({ name: "web", count: "4", memory: "128 MiB" });
  page.follow(second);
  expect(page.form()).toMatchObject({ name: "web", count: "4", memory: "128 MiB" });
  page.pause();
  expect(url.told).toHaveLength(3);
  page.follow(url.told[2]);
  expect(page.form()).toMatchObject({ name: "web", count: "4", memory: "128 MiB" });
});

it("takes over the URL of a link, also one that it wrote long ago", () => {
  const page = shown();
  page.type({ name: "web" });
  page.pause();
  const [first] = url.told;
  page.follow(first);
  page.follow({ ...emptyForm, name: "other" });
  expect(page.form().name).toBe("other");
  page.follow(first);
  expect(page.form().name).toBe("web");
  page.pause();
  expect(url.told).toHaveLength(1);
});
