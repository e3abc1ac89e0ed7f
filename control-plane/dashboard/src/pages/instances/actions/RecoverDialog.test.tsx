import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "../../../api/client.ts";
import { actOn, type Instance } from "../../../api/instances.ts";
import { RecoverDialog } from "./RecoverDialog.tsx";

vi.mock("../../../api/instances.ts", async (original) => ({
  ...(await original<typeof import("../../../api/instances.ts")>()),
  actOn: vi.fn(),
}));
const call = vi.mocked(actOn);

const instance = (name: string, project = "default") => ({ id: name, name, project }) as unknown as Instance;
const dataLoss = (name: string) =>
  new ApiError(409, {
    code: "data_loss",
    detail: "this gives up data",
    disks: 1,
    loss: [
      { instance_name: name, disk: `d-${name}`, disk_name: "root", version: "v", unsaved_bytes: 2048, saved_at: null },
    ],
  });

function shown(instances: Instance[]) {
  const done = vi.fn();
  render(
    <MantineProvider env="test">
      <RecoverDialog instances={instances} onClose={() => {}} onDone={done} />
    </MantineProvider>,
  );
  return { done, user: userEvent.setup() };
}

beforeEach(() => call.mockReset());

test("a loss is never accepted before it was shown", async () => {
  call.mockRejectedValueOnce(dataLoss("web.0")).mockResolvedValueOnce({});
  const { done, user } = shown([instance("web.0")]);
  await user.click(await screen.findByRole("button", { name: "Recover" }));
  expect(call).toHaveBeenLastCalledWith("recover", [instance("web.0")], {});
  expect(await screen.findByText("2 KiB")).toBeTruthy();
  const accept = screen.getByRole("button", { name: "Recover and lose this data" });
  expect(accept).toHaveProperty("disabled", true);
  await user.click(screen.getByRole("checkbox"));
  await user.click(accept);
  expect(call).toHaveBeenLastCalledWith("recover", [instance("web.0")], { accept_loss: true });
  expect(done).toHaveBeenCalledTimes(1);
});

test("what is lost in one project does not count as accepted for the next", async () => {
  const [web, db] = [instance("web.0"), instance("db.0", "shop")];
  call.mockRejectedValueOnce(dataLoss("web.0")).mockResolvedValueOnce({}).mockRejectedValueOnce(dataLoss("db.0"));
  const { done, user } = shown([web, db]);
  await user.click(await screen.findByRole("button", { name: "Recover" }));
  await user.click(await screen.findByRole("checkbox"));
  await user.click(screen.getByRole("button", { name: "Recover and lose this data" }));
  await user.click(await screen.findByRole("button", { name: "Recover" }));
  expect(call).toHaveBeenLastCalledWith("recover", [db], {});
  expect(await screen.findByText("db.0")).toBeTruthy();
  expect(done).not.toHaveBeenCalled();
});
