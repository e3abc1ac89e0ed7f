import { screen } from "@testing-library/react";
import { useState } from "react";
import { afterEach, expect, test, vi } from "vitest";
import { fakeApi, list, show } from "../../../testing/pages.tsx";
import { DiskFields } from "./DiskFields.tsx";
import { MemberFields, ReadyFields } from "./Fields.tsx";
import { emptyForm, type Field, type Form, meantBy } from "./form.ts";

const gib = 1024 ** 3;
const image = {
  id: "img-1",
  name: "win",
  project: "shop",
  version_count: 1,
  size_bytes: 40 * gib,
  firmware: "uefi_secure",
  min_memory_bytes: 4 * gib,
};
let meant: ReturnType<typeof meantBy>["request"];

/** The parts of the wizard, and what they mean. */
function Wizard({ start, errors = {} }: { start: Partial<Form>; errors?: Partial<Record<Field, string>> }) {
  const [form, setForm] = useState<Form>({ ...emptyForm, image: "win", ...start });
  meant = meantBy(form).request;
  const change = (changes: Partial<Form>) => setForm((before) => ({ ...before, ...changes }));
  const props = { form, change, errors, project: "shop" };
  return (
    <>
      <MemberFields {...props} />
      <DiskFields {...props} />
      <ReadyFields {...props} />
    </>
  );
}

const wizard = (start: Partial<Form> = {}, errors = {}) => {
  fakeApi({ "GET /v1/images": list(image) });
  return show(<Wizard start={start} errors={errors} />);
};

afterEach(() => vi.unstubAllGlobals());

test("the firmware is that of the image unless another is chosen, and says so", async () => {
  const { user } = wizard();
  expect(await screen.findByText("Secure Boot, as the image says.")).toBeTruthy();
  expect(screen.getByText("The image needs 4 GiB, so they get that.")).toBeTruthy();
  expect(meant.firmware).toBeUndefined();
  await user.click(screen.getByRole("radio", { name: "UEFI" }));
  expect(meant.firmware).toBe("uefi");
});

test("a TPM is asked for, and of a fork it can be refused", async () => {
  const { user } = wizard({ image: "", snapshot: "before" });
  const tpm = (name: string) => screen.getByRole("radio", { name });
  await user.click(await screen.findByRole("radio", { name: "Yes" }));
  expect(meant.tpm).toBe(true);
  await user.click(tpm("No"));
  expect(meant.tpm).toBe(false);
  await user.click(tpm("As its source"));
  expect(meant.tpm).toBeUndefined();
});

test("members that stay off after a restart of their host are asked for", async () => {
  const { user } = wizard();
  await user.click(await screen.findByRole("radio", { name: "stays off" }));
  expect(meant.on_host_start).toBe("stay");
});

test("disks are added and removed, and one that starts as an image gets at least its size", async () => {
  const { user } = wizard();
  await user.click(await screen.findByRole("button", { name: "Add a disk" }));
  await user.click(screen.getByRole("button", { name: "Another disk" }));
  expect(meant.disks?.map(({ name }) => name)).toEqual(["data", "data-2"]);
  const [, second] = screen.getAllByRole("combobox", { name: "Starts as" });
  await user.click(second as HTMLElement);
  await user.click((await screen.findAllByRole("option", { name: "win" })).at(-1) as HTMLElement);
  expect(meant.disks?.[1]).toEqual({ name: "data-2", size_bytes: 40 * gib, source: { image: "win" } });
  // Another size can be typed, letter by letter.
  const [, size] = screen.getAllByRole("textbox", { name: "Size" });
  await user.clear(size as HTMLElement);
  await user.type(size as HTMLElement, "50 GiB");
  expect(meant.disks?.[1]?.size_bytes).toBe(50 * gib);
  await user.click(screen.getByRole("button", { name: "Remove disk 1" }));
  expect(meant.disks?.map(({ name }) => name)).toEqual(["data-2"]);
});

test("a refusal stands at the disk and the field that it is about", async () => {
  wizard({ further: ["root;1GiB"] }, { "disk/0/name": "'root' is the name of a disk that Muster makes itself" });
  const field = await screen.findByRole("textbox", { name: "Name of the disk" });
  expect(field.getAttribute("aria-invalid")).toBe("true");
  expect(screen.getByText(/that Muster makes itself/)).toBeTruthy();
});
