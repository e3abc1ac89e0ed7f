import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test, vi } from "vitest";
import { SearchSelect } from "./SearchSelect.tsx";

test("Enter takes the first option that fits, also if it was typed before the list was there", async () => {
  const user = userEvent.setup();
  const onChange = vi.fn();
  const select = (data: string[], isLoaded: boolean) => (
    <MantineProvider env="test">
      <SearchSelect label="Image" data={data} value={null} onChange={onChange} isLoaded={isLoaded} />
    </MantineProvider>
  );
  const { rerender } = render(select([], false));
  await user.type(screen.getByRole("combobox", { name: /Image/ }), "deb");
  rerender(select(["alpine", "debian"], true));
  await user.keyboard("{Enter}");
  expect(onChange).toHaveBeenCalledWith("debian", expect.anything());
});
