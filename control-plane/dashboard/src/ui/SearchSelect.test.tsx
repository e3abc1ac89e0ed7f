import { MantineProvider } from "@mantine/core";
import { act, createEvent, fireEvent, render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, expect, test, vi } from "vitest";
import { SearchSelect } from "./SearchSelect.tsx";

const onChange = vi.fn();
afterEach(() => onChange.mockReset());

const select = (labels: string[], { isLoaded = true, value = null as string | null } = {}) => (
  <MantineProvider env="test">
    <SearchSelect label="Image" data={labels} value={value} onChange={onChange} isLoaded={isLoaded} />
  </MantineProvider>
);
const field = () => screen.getByRole("combobox", { name: /Image/ });

/** Presses Enter, and tells whether the form would be sent. */
const enter = () => {
  const event = createEvent.keyDown(field(), { key: "Enter", code: "Enter" });
  fireEvent(field(), event);
  return !event.defaultPrevented;
};

test("Enter takes the first option that fits, also if it was typed before the list was there", async () => {
  const user = userEvent.setup();
  const { rerender } = render(select([], { isLoaded: false }));
  await user.type(field(), "deb");
  rerender(select(["alpine", "debian"]));
  await user.keyboard("{Enter}");
  expect(onChange).toHaveBeenCalledWith("debian", expect.anything());
});

test("Enter takes the first option that fits, also if all was typed before the timers of the opened list ran", async () => {
  render(select(["alpine", "debian"]));
  act(() => field().focus());
  fireEvent.input(field(), { target: { value: "deb" } });
  // Mantine forgets which option it marked, in a timer of the list that opens.
  await act(() => new Promise((done) => setTimeout(done, 5)));
  expect(enter()).toBe(false);
  expect(onChange).toHaveBeenCalledWith("debian", expect.anything());
});

test("Enter takes the option that the arrow keys marked", async () => {
  const user = userEvent.setup();
  render(select(["alpine", "debian 12", "debian 13"]));
  await user.type(field(), "deb");
  await user.keyboard("{ArrowDown}{Enter}");
  expect(onChange).toHaveBeenCalledWith("debian 13", expect.anything());
});

test("Enter sends no form while a search waits and its list is closed, and takes nothing that was not searched for", async () => {
  const user = userEvent.setup();
  const { rerender } = render(select(["alpine", "debian"], { value: "debian" }));
  await user.clear(field());
  await user.type(field(), "alp{Escape}");
  expect(enter()).toBe(false);
  await user.tab();
  expect(onChange).not.toHaveBeenCalled();
  // What was chosen is not offered any more, and nobody typed since.
  rerender(select(["alpine"], { value: "debian" }));
  await user.click(field());
  await user.keyboard("{Enter}");
  expect(onChange).not.toHaveBeenCalled();
});

test("Enter sends no form while what was typed names nothing, and does not take back a choice", async () => {
  const user = userEvent.setup();
  const { unmount } = render(select(["alpine", "debian"]));
  await user.type(field(), "windows");
  expect(enter()).toBe(false);
  unmount();
  render(select(["alpine", "debian"], { value: "debian" }));
  await user.click(field());
  await user.keyboard("{Enter}");
  expect(onChange).not.toHaveBeenCalled();
});
