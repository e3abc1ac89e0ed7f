import { screen, waitFor } from "@testing-library/react";
import { useState } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { fakeApi, list, show } from "../../../testing/pages.tsx";
import { CardFields } from "./CardFields.tsx";
import { emptyForm, type Form, meantBy } from "./form.ts";

const network = (name: string, mode: string) => ({
  id: `n-${name}`,
  name,
  mode,
  project: "shop",
  subnet_v4: null,
  bridge: "br0",
});
let meant: ReturnType<typeof meantBy>["request"]["nics"];

/** The part of the wizard, and what it means. */
function Wizard({ start }: { start: Partial<Form> }) {
  const [form, setForm] = useState<Form>({ ...emptyForm, image: "demo", ...start });
  meant = meantBy(form).request.nics;
  return (
    <CardFields
      form={form}
      change={(changes) => setForm((before) => ({ ...before, ...changes }))}
      errors={{ "card/0/network": "there is no network 'gone'" }}
      project="shop"
    />
  );
}

afterEach(() => vi.unstubAllGlobals());
const api = () =>
  fakeApi({
    "GET /v1/networks": list(network("back", "nat"), network("lan", "bridge")),
    "GET /v1/security-groups": list(),
  });

test("choosing begins with the usual card, and going back to usual says nothing", async () => {
  api();
  const { user } = show(<Wizard start={{}} />);
  await user.click(await screen.findByRole("radio", { name: "Choose" }));
  expect(meant).toEqual([{ network: "default" }]);
  await user.click(screen.getByRole("button", { name: "Another card" }));
  await waitFor(() => expect(meant?.length).toBe(2));
  await user.click(screen.getByRole("radio", { name: "As usual" }));
  expect(meant).toBeUndefined();
});

test("a card in a bridge of the hosts has no address, groups or published ports of ours", async () => {
  api();
  const { user } = show(<Wizard start={{ cards: "chosen", card: ["back;10.20.0.5;web;22"] }} />);
  await user.click(await screen.findByRole("combobox", { name: "Network" }));
  await user.click(await screen.findByRole("option", { name: /^lan/ }));
  expect(meant).toEqual([{ network: "lan" }]);
  expect(screen.queryByRole("combobox", { name: "Security groups" })).toBeNull();
});

test("a refusal stands at the card and field that it is about", async () => {
  api();
  show(<Wizard start={{ cards: "chosen", card: ["gone;;default"] }} />);
  const field = await screen.findByRole("combobox", { name: "Network" });
  expect(field.getAttribute("aria-invalid")).toBe("true");
  expect(screen.getByText("there is no network 'gone'")).toBeTruthy();
});
