import { screen, waitFor } from "@testing-library/react";
import { afterEach, expect, test, vi } from "vitest";
import type { Image } from "../../api/images.ts";
import { fakeApi, problem, show } from "../../testing/pages.tsx";
import { SystemForm } from "./SystemForm.tsx";

const image = {
  id: "img-1",
  name: "debian",
  project: "shop",
  os: "debian-12",
  default_user: null,
  min_disk_bytes: null,
  min_memory_bytes: null,
  firmware: "bios",
} as Image;
const done = vi.fn();

afterEach(() => {
  vi.unstubAllGlobals();
  done.mockReset();
});

test("what is known of the system is saved, and the firmware only if another is chosen", async () => {
  const calls = fakeApi({ "PATCH /v1/images/img-1": image });
  const { user } = show(<SystemForm image={image} onClose={done} />);
  await user.type(await screen.findByRole("textbox", { name: "User for signing in" }), "debian");
  expect(screen.getByRole("option", { name: "As it is now: BIOS" })).toHaveProperty("selected", true);
  await user.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => expect(done).toHaveBeenCalled());
  const known = { os: "debian-12", default_user: "debian", min_disk_bytes: null, min_memory_bytes: null };
  expect(calls[0]?.body).toEqual(known);
  await user.selectOptions(screen.getByRole("combobox", { name: "Firmware" }), "Secure Boot");
  await user.click(screen.getByRole("button", { name: "Save" }));
  await waitFor(() => expect(calls.length).toBe(2));
  expect(calls[1]?.body).toEqual({ ...known, firmware: "uefi_secure" });
});

test("a refusal keeps the form open and what was typed in it", async () => {
  fakeApi({ "PATCH /v1/images/img-1": problem(422, { code: "invalid", detail: "at most 64 characters" }) });
  const { user } = show(<SystemForm image={image} onClose={done} />);
  await user.type(await screen.findByRole("textbox", { name: "Operating system" }), "-x");
  await user.click(screen.getByRole("button", { name: "Save" }));
  expect(await screen.findByText("at most 64 characters")).toBeTruthy();
  expect(screen.getByRole("textbox", { name: "Operating system" })).toHaveProperty("value", "debian-12-x");
  expect(done).not.toHaveBeenCalled();
});
