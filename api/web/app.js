import "./vendor/lightweight-charts.js";
