/** Short messages at the edge of the page, for what succeeded or failed without a place of its own. */
import { notifications } from "@mantine/notifications";
import { IconCheck, IconX } from "@tabler/icons-react";
import { ApiError } from "../api/client.ts";

/** Says that something is done: a sentence without a point, such as "Token ci is revoked". */
export function toastDone(message: string): void {
  notifications.show({ message, color: "teal", icon: <IconCheck size={16} />, autoClose: 4000 });
}

/** Says that something failed. It stays until it is closed. */
export function toastError(error: unknown, title = "That did not work"): void {
  const problem = error instanceof ApiError ? error : undefined;
  const reference = problem?.request_id === undefined ? "" : ` (${problem.code}, request ${problem.request_id})`;
  const message = `${error instanceof Error ? error.message : String(error)}${reference}`;
  notifications.show({ title, message, color: "red", icon: <IconX size={16} />, autoClose: false });
}
