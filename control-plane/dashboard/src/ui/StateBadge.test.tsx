import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { StateBadge } from "./StateBadge.tsx";

test("a reason reads as words, and on hover as the API writes it", () => {
  render(
    <MantineProvider>
      <StateBadge state="stopped" reason="power_cut" />
    </MantineProvider>,
  );
  expect(screen.getByText("power cut")).toBeDefined();
  expect(screen.getByTitle("stopped: power_cut")).toBeDefined();
});
