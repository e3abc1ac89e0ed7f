import { expect, test, vi } from "vitest";
import { KeySequences, type Pressed } from "./key-sequences.ts";

function keyboard() {
  const actions = { "?": vi.fn(), "g d": vi.fn() };
  const keys = new KeySequences(actions);
  const press = (key: string, at: number, more: Partial<Pressed> = {}) =>
    keys.press({
      key,
      ctrlKey: false,
      metaKey: false,
      altKey: false,
      target: document.body,
      timeStamp: at,
      preventDefault: () => {},
      ...more,
    });
  return { actions, press };
}

test("a single key and a pair of keys do what they stand for", () => {
  const { actions, press } = keyboard();
  press("?", 0);
  press("g", 100);
  press("d", 600);
  expect(actions["?"]).toHaveBeenCalledTimes(1);
  expect(actions["g d"]).toHaveBeenCalledTimes(1);
});

test("a pair counts only if the second key comes soon and nothing is between", () => {
  const { actions, press } = keyboard();
  press("g", 0);
  press("d", 5_000);
  press("g", 6_000);
  press("x", 6_100);
  press("d", 6_200);
  press("d", 6_300);
  expect(actions["g d"]).not.toHaveBeenCalled();
});

test("keys with ctrl, and keys in a field or a dialog, are left alone", () => {
  const { actions, press } = keyboard();
  const field = document.createElement("input");
  press("?", 0, { target: field });
  press("?", 0, { ctrlKey: true });
  const dialog = document.createElement("div");
  dialog.setAttribute("role", "dialog");
  press("?", 0, { target: dialog });
  expect(actions["?"]).not.toHaveBeenCalled();
});
