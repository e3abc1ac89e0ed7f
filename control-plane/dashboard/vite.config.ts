import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` sends calls of the API to a controller: MUSTER_DEV_URL says where it is. With MUSTER_DEV_TOKEN the
// calls carry that token, so that pages can be worked on without signing in.
const controller = process.env.MUSTER_DEV_URL ?? "http://127.0.0.1:7770";
const token = process.env.MUSTER_DEV_TOKEN;
const proxied = {
  // Consoles are WebSockets.
  ws: true,
  target: controller,
  changeOrigin: true,
  secure: false,
  ...(token ? { headers: { Authorization: `Bearer ${token}` } } : {}),
};
const proxy = { "/v1": proxied, "/openapi.json": proxied };

export default defineConfig({
  base: "/ui/",
  plugins: [react()],
  build: {
    target: "es2022",
    // The Content-Security-Policy allows no inline parts, so every asset is a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // tools/first-load.mjs reads which files the first page needs.
    manifest: true,
    reportCompressedSize: false,
  },
  server: { proxy },
  preview: { proxy },
  test: {
    environment: "happy-dom",
    include: ["src/**/*.test.{ts,tsx}"],
    setupFiles: ["src/test-setup.ts"],
    restoreMocks: true,
    // For a machine that has much else to do.
    testTimeout: 30_000,
  },
});
