import { useRouter } from "@tanstack/react-router";
import { useCallback } from "react";
import { ApiError } from "../api/client.ts";
import { queryClient } from "../api/query-client.ts";
import { endSession } from "../api/session.ts";
import { tellSignedOut } from "../live/live.ts";
import { toastError } from "../ui/toast.tsx";

/** Ends the session here and in the other tabs, forgets what was read, and goes to the sign-in page. */
export function useSignOut(): () => void {
  const router = useRouter();
  return useCallback(() => {
    const leave = async () => {
      try {
        await endSession();
      } catch (error) {
        // A session that is over already is what was wanted.
        if (!(error instanceof ApiError && error.status === 401)) {
          toastError(error, "You are still signed in");
          return;
        }
      }
      tellSignedOut();
      await router.navigate({ to: "/sign-in", search: {} as never });
      queryClient.clear();
    };
    void leave();
  }, [router]);
}
