/** Where the controller serves the dashboard; `base` of vite.config.ts. */
export const basePath = "/ui";
