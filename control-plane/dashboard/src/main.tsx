// In a layer, so that our own rules win wherever the build puts them.
import "@mantine/core/styles.layer.css";
import "@mantine/notifications/styles.layer.css";
import "./global.css";
import { localStorageColorSchemeManager, MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { queryClient } from "./api/query-client.ts";
import { reloadWhenAFileDoesNotCome } from "./app/parts.ts";
import { router } from "./router.tsx";
import { cssVariables, theme } from "./theme.ts";

reloadWhenAFileDoesNotCome();

const element = document.getElementById("root");
if (element === null) throw new Error("index.html has no #root");

// public/theme.js reads the same key before the first paint.
const scheme = localStorageColorSchemeManager({ key: "muster.theme" });

createRoot(element).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      cssVariablesResolver={cssVariables}
      defaultColorScheme="auto"
      colorSchemeManager={scheme}
    >
      <QueryClientProvider client={queryClient}>
        <Notifications position="top-right" />
        <RouterProvider router={router} />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
